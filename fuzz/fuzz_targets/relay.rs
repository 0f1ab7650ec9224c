//! A relay that says anything at all. The input is what it says, cut at `~`: the first part when it is
//! connected to, the next each time that it has heard something, and then it hangs up.
//!
//! Each recipient has one outcome. Nobody is accepted unless the whole message was on the wire and the
//! relay has said a 2yz; and the message is on the wire only after the handover was recorded. What a relay says
//! too early to be noticed it may have said in answer, as far as anybody can tell: so it listens to the end.
#![no_main]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sendmail_core::{Envelope, Handover, Mailer as _, Message, Outcome, Result, Timestamp};
use sendmail_smtp::{SmtpConfig, SmtpMailer, Timeouts};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

const BODY: &[u8] = b"Message-ID: <m@x>\nDate: d\n\n.\nend\n";
const ON_THE_WIRE: &[u8] = b"Message-ID: <m@x>\r\nDate: d\r\n\r\n..\r\nend\r\n.\r\n";

#[derive(Default)]
struct Recorded(AtomicBool);

#[async_trait::async_trait]
impl Handover for Recorded {
    async fn before_handover(&self) -> Result<()> {
        assert!(!self.0.swap(true, Ordering::Relaxed), "the handover is recorded twice");
        Ok(())
    }
}

fuzz_target!(|said: &[u8]| RUNTIME.block_on(converse(said)));

async fn converse(said: &[u8]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let parts: Vec<Vec<u8>> = said.split(|byte| *byte == b'~').map(<[u8]>::to_vec).collect();
    let relay = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut heard = Vec::new();
        for part in parts {
            stream.write_all(&part).await?;
            heard.reserve(4096);
            if stream.read_buf(&mut heard).await? == 0 {
                break;
            }
        }
        stream.shutdown().await?;
        stream.read_to_end(&mut heard).await?;
        std::io::Result::Ok(heard)
    });
    let envelope = Envelope::parse("a@b", ["c@d", "e@f", "g@h"]).expect("an envelope");
    let message = Message::from_raw(BODY, Timestamp::EPOCH, "x").expect("a message");
    let config = SmtpConfig::new("127.0.0.1", port).expect("a relay");
    let config = config.with_timeouts(Timeouts::all(Duration::from_millis(100)));
    let mailer = SmtpMailer::new(config.with_max_idle(Duration::ZERO)).expect("a mailer");
    let recorded = Recorded::default();
    let report = mailer.send(&envelope, &message, &recorded).await;
    drop(mailer);
    // What a relay hears while it is hung up on is lost to it: then nothing is known.
    let Ok(Ok(heard)) = relay.await else { return };
    let is_whole = heard.windows(ON_THE_WIRE.len()).any(|window| window == ON_THE_WIRE);
    let recorded = recorded.0.load(Ordering::Relaxed);
    assert!(recorded || !is_whole, "the message went out unrecorded");
    let Ok(report) = report else { return };
    assert_eq!(report.outcomes().len(), 3);
    let is_accepted = |outcome: &Outcome| matches!(outcome, Outcome::Accepted(_));
    let accepted = report.outcomes().iter().filter(|(_, outcome)| is_accepted(outcome)).count();
    assert!(accepted == 0 || is_whole && recorded && said.contains(&b'2'));
}
