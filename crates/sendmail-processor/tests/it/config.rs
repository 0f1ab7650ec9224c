//! A processor is not built that cannot work.

use std::time::Duration;

use sendmail_core::ErrorKind;
use sendmail_processor::ProcessorConfig;

use crate::bench::Bench;

#[tokio::test]
async fn nonsense_is_refused_by_name() {
    let bench = Bench::new();
    let check = |name: &str, set: fn(&mut ProcessorConfig)| {
        let mut config = ProcessorConfig::default();
        set(&mut config);
        let error = bench.builder().config(config).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(name), "{error}");
    };
    check("max_in_flight", |config| config.max_in_flight = 0);
    check("concurrency", |config| config.concurrency = 0);
    check("poll_interval", |config| config.poll_interval = Duration::ZERO);
    check("lifetime", |config| config.lifetime = Duration::ZERO);
    check("backoff", |config| config.backoff.first = Duration::ZERO);
    check("relay_pause", |config| config.relay_pause.jitter_percent = 101);
}
