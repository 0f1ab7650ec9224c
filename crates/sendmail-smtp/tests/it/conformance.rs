//! The suite that every mailer passes.

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{Envelope, Mailer};
use sendmail_smtp::{Credentials, SmtpConfig, SmtpMailer};
use sendmail_testkit::mailer_suite;
use sendmail_testkit::mailer_suite::{Behaviour, Declined, Delivered, MailerHarness};
use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};

const PASSWORD: &str = "hunter2-and-more";

struct Harness<const PIPELINING: bool> {
    mailer: Arc<SmtpMailer>,
    server: ScriptedServer,
    /// Where it listened, for a relay that is not there.
    gone: bool,
}

fn script(behaviour: Behaviour) -> Option<Script> {
    let accepting = Script::new().with("AUTH PLAIN");
    Some(match behaviour {
        Behaviour::AcceptAll | Behaviour::Unreachable => accepting,
        Behaviour::Except { deferred, refused } => {
            let later = |script: Script, r| script.on(At::RcptTo(r), Do::reply("450 4.2.0 later"));
            let never = |script: Script, r| script.on(At::RcptTo(r), Do::reply("550 5.1.1 never"));
            refused.into_iter().fold(deferred.into_iter().fold(accepting, later), never)
        }
        Behaviour::DeferAll => accepting.on(At::AnyRcpt, Do::reply("450 4.2.0 later")),
        Behaviour::RefuseAll => accepting.on(At::AnyRcpt, Do::reply("550 5.1.1 never")),
        Behaviour::LostOnceBeforeHandover => accepting.on_transaction(1, At::Data, Do::Close),
        Behaviour::LostOnceAfterHandover => accepting.on_transaction(1, At::Dot, Do::Close),
        Behaviour::LeavesAfterEach => accepting.on(At::Dot, Do::reply_and_close("250 2.0.0 ok")),
        _ => return None,
    })
}

#[async_trait]
impl<const PIPELINING: bool> MailerHarness for Harness<PIPELINING> {
    async fn start(behaviour: Behaviour) -> Result<Self, Declined> {
        let gone = behaviour == Behaviour::Unreachable;
        let unknown = Declined(format!("no script for {behaviour:?}"));
        let mut script = script(behaviour).ok_or(unknown)?;
        if !PIPELINING {
            script = script.without("PIPELINING");
        }
        let server = ScriptedServer::start(script).await.unwrap();
        let port = match gone {
            // A port that was free a moment ago and that nobody listens on.
            true => {
                std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
            }
            false => server.address().port(),
        };
        let config = SmtpConfig::new("127.0.0.1", port)
            .unwrap()
            .with_credentials(Credentials::new("user", PASSWORD.to_owned().into()))
            .unwrap()
            .with_clear_text_auth_on_loopback(true);
        Ok(Self { mailer: Arc::new(SmtpMailer::new(config).unwrap()), server, gone })
    }

    fn mailer(&self) -> Arc<dyn Mailer> {
        self.mailer.clone()
    }

    async fn delivered(&self) -> Vec<Delivered> {
        assert!(!self.gone || self.server.connections() == 0);
        let delivered = |message: sendmail_testkit::smtp::Received| Delivered {
            reverse_path: message.reverse_path,
            recipients: message.recipients,
            bytes: message.bytes,
        };
        self.server.messages().into_iter().map(delivered).collect()
    }

    fn secret(&self) -> Option<String> {
        Some(PASSWORD.to_owned())
    }

    fn unsendable() -> Option<Envelope> {
        Some(Envelope::parse("a@b", ["c@\u{ff11}.\u{ff12}.\u{ff13}.\u{ff14}"]).unwrap())
    }
}

mod pipelined {
    use super::*;
    mailer_suite!(Harness<true>);
}

mod one_by_one {
    use super::*;
    mailer_suite!(Harness<false>);
}
