//! The development server: clients that say anything. Every answer is one, and what is captured has
//! whole lines and a recipient.
#![no_main]
#![allow(dead_code, reason = "the module is the program's own")]

use std::sync::{Arc, LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

#[path = "../../crates/sendmail-cli/src"]
mod program {
    pub(crate) mod smtp_sink;
}
use program::smtp_sink::{Captured, SmtpSink};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

fuzz_target!(|said: &[u8]| RUNTIME.block_on(talk(said)));

async fn talk(said: &[u8]) {
    let captured = Arc::new(Mutex::new(Vec::<Captured>::new()));
    let keep = captured.clone();
    let keeper = Arc::new(move |message| {
        keep.lock().expect("nobody panics").push(message);
        Ok(())
    });
    let address = "127.0.0.1:0".parse().expect("an address");
    let sink = SmtpSink::bind(address, keeper).await.expect("a free port");
    let address = sink.address().expect("an address");
    let serving = tokio::spawn(sink.serve());
    let (mut reader, mut writer) =
        TcpStream::connect(address).await.expect("it listens").into_split();
    let said = said.to_vec();
    let talking = tokio::spawn(async move {
        // It may hang up while we speak.
        let _ = writer.write_all(&said).await;
        let _ = writer.shutdown().await;
    });
    let mut answers = Vec::new();
    let ended = reader.read_to_end(&mut answers).await;
    talking.abort();
    serving.abort();
    for answer in answers.split_inclusive(|byte| *byte == b'\n') {
        let is_answer = answer.ends_with(b"\r\n")
            && matches!(answer, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9', b' ' | b'-', ..]);
        assert!(is_answer || ended.is_err(), "{}", answer.escape_ascii());
    }
    for message in captured.lock().expect("nobody panics").iter() {
        assert!(!message.to.is_empty() && message.to.iter().all(|to| !to.is_empty()));
        for line in message.bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\r\n").expect("no bare LF is taken");
            assert!(!text.contains(&b'\r'), "no bare CR is taken");
        }
    }
}
