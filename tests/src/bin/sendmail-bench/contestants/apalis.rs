//! apalis: a table queue in the application's database, whose worker sends with lettre.

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_tests::Result;
use sendmail_tests::peers;
use sendmail_tests::peers::counter::Counter;

use super::commit::{Database, Kind, WRITERS};
use super::{ATTACHED, lettre};
use crate::figures::Sample;
use crate::row::Contestant;
use crate::scale::Scale;

/// The whole life of a mail that is a job.
pub(crate) struct Life {
    pub(crate) database: Arc<Database>,
    pub(crate) connections: usize,
    pub(crate) messages: (usize, usize),
}

#[async_trait]
impl Contestant for Life {
    fn name(&self) -> String {
        format!("apalis, whose worker sends with lettre, {}", self.database.kind.name())
    }

    fn missing(&self) -> Option<String> {
        match self.database.kind {
            Kind::MariaDb => Some(
                "apalis-mysql is a release candidate that does not go with apalis 1.0, and pushes no \
                 job in a transaction of the caller; sqlxmq is for PostgreSQL only"
                    .to_owned(),
            ),
            _ => lettre::missing(),
        }
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(self.messages.0, self.messages.1);
        let database = self.database.create()?;
        let counter = Counter::start().await?;
        let mut command =
            lettre::command("apalis", counter.address, messages, ATTACHED, self.connections)?;
        command.args(["--database", &database.url, "--writers", &WRITERS.to_string()]);
        let ran = peers::run(&mut command)?;
        Ok(Sample::rate(messages, ran.output.trim().parse()?))
    }
}
