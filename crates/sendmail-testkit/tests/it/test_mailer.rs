//! The mailer suite on the [`TestMailer`], and what tests of applications use besides.

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{Envelope, Mailer};
use sendmail_testkit::mailer_suite::{Behaviour, Declined, Delivered, MailerHarness};
use sendmail_testkit::{Answer, TestMailer};

struct Harness(TestMailer);

const UNSENDABLE: &str = "unsendable@y.example";

#[async_trait]
impl MailerHarness for Harness {
    async fn start(behaviour: Behaviour) -> Result<Self, Declined> {
        let mailer = TestMailer::new();
        let (later, never) = (Answer::Reply(450, "4.2.1 later"), Answer::Reply(550, "5.1.1 never"));
        match behaviour {
            Behaviour::AcceptAll | Behaviour::LeavesAfterEach => {}
            Behaviour::Except { deferred, refused } => {
                deferred.iter().for_each(|recipient| mailer.on(recipient, later));
                refused.iter().for_each(|recipient| mailer.on(recipient, never));
            }
            Behaviour::DeferAll => mailer.always(later),
            Behaviour::RefuseAll => mailer.always(never),
            Behaviour::Unreachable => mailer.always(Answer::RelayDown),
            Behaviour::LostOnceBeforeHandover => mailer.next(Answer::RelayDown),
            Behaviour::LostOnceAfterHandover => mailer.next(Answer::Unknown),
            other => return Err(Declined(format!("it cannot do {other:?}"))),
        }
        mailer.cannot_send_to(UNSENDABLE);
        Ok(Self(mailer))
    }

    fn mailer(&self) -> Arc<dyn Mailer> {
        Arc::new(self.0.clone())
    }

    async fn delivered(&self) -> Vec<Delivered> {
        let delivered = |delivery: sendmail_testkit::Delivery| Delivered {
            reverse_path: delivery.reverse_path.as_str().to_owned(),
            recipients: delivery.recipients.iter().map(ToString::to_string).collect(),
            bytes: delivery.message.as_bytes().to_vec(),
        };
        self.0.deliveries().into_iter().map(delivered).collect()
    }

    fn unsendable() -> Option<Envelope> {
        Envelope::parse("a@y.example", [UNSENDABLE]).ok()
    }
}

sendmail_testkit::mailer_suite!(Harness);
