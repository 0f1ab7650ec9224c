//! The mailer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    DeliveryReport, Envelope, Error, ErrorKind, Handover, Mailer, Message, Outcome, Reply, Result,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::arguments::{ARGUMENT_BYTES, arguments, objection, runs};
use crate::input::file_of;
use crate::output::Output;
use crate::program::{inspect, path_of_url};
use crate::run::{Ready, Runner};

/// A [`Mailer`] that hands messages to a program. How it is called and what its exit codes mean stands
/// in the [crate's documentation](crate).
///
/// It needs a tokio runtime with I/O and time enabled.
#[derive(Debug)]
pub struct ProgramMailer {
    program: PathBuf,
    relay: String,
    time_limit: Duration,
    places: Arc<Semaphore>,
}

impl ProgramMailer {
    /// How long one run of the program may take, unless another limit is set: 10 minutes, as long as
    /// SMTP waits for the answer to a message (RFC 5321 section 4.5.3.2.6).
    pub const TIME_LIMIT: Duration = Duration::from_secs(600);

    /// How many programs run at once, unless another limit is set.
    pub const MAX_RUNNING: usize = 8;

    /// A mailer for the program at `program`, an absolute path.
    ///
    /// # Errors
    ///
    /// The path is not absolute, there is no regular file that may be executed, or it is this queue's
    /// own program.
    pub fn new(program: impl Into<PathBuf>) -> Result<Self> {
        let program = program.into();
        inspect(&program).map_err(|unusable| unusable.refused(&program))?;
        let relay = format!("program:{}", program.display()).replace(char::is_control, "?");
        let places = Arc::new(Semaphore::new(Self::MAX_RUNNING));
        Ok(Self { program, relay, time_limit: Self::TIME_LIMIT, places })
    }

    /// A mailer for the program in `program:/usr/sbin/sendmail` or `program:///usr/sbin/sendmail`.
    /// The path is taken as it is written: nothing in it is percent-decoded.
    ///
    /// # Errors
    ///
    /// It is no such URL, or as [`new`](Self::new).
    pub fn from_url(url: &str) -> Result<Self> {
        Self::new(path_of_url(url)?)
    }

    /// The same with another limit for the time of one run; it is killed when it takes longer.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// The same with another number of programs that run at once, at least 1. Further messages wait.
    #[must_use]
    pub fn with_max_running(mut self, programs: usize) -> Self {
        self.places = Arc::new(Semaphore::new(programs.clamp(1, Semaphore::MAX_PERMITS)));
        self
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Waits for a place among the programs that may run at once.
    async fn place(&self) -> Result<Arc<OwnedSemaphorePermit>> {
        match Arc::clone(&self.places).acquire_owned().await {
            Ok(place) => Ok(Arc::new(place)),
            // Nobody closes the semaphore.
            Err(closed) => {
                let kind = ErrorKind::InvalidState;
                Err(Error::new(kind, "start the program", "no places").with_source(closed))
            }
        }
    }

    /// Does all that can fail before the program is started.
    async fn ready(&self, message: &Message) -> Result<Ready> {
        inspect(&self.program).map_err(|unusable| unusable.outage(&self.program))?;
        let message = message.clone();
        let written = tokio::task::spawn_blocking(move || file_of(&message)).await;
        let input = written.unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
        let input = input.map_err(|error| {
            Error::io("write the message into a temporary file", error)
                .with("directory", std::env::temp_dir().display())
                .temporary()
        })?;
        let output = Output::open().map_err(|error| {
            Error::io("make a pipe for the program's output", error).temporary()
        })?;
        Ok(Ready { input, output })
    }
}

#[async_trait]
impl Mailer for ProgramMailer {
    fn relay(&self) -> &str {
        &self.relay
    }

    async fn send(
        &self,
        envelope: &Envelope,
        message: &Message,
        handover: &dyn Handover,
    ) -> Result<DeliveryReport> {
        if let Some(why) = objection(envelope) {
            let refused = Outcome::Refused(Reply::local(550, "5.1.7", why));
            return Ok(DeliveryReport::same(envelope, &refused));
        }
        let place = self.place().await?;
        let runner = Runner { program: &self.program, time_limit: self.time_limit, place };
        let mut outcomes = Vec::with_capacity(envelope.recipients().len());
        let mut in_doubt = false;
        for (index, to) in runs(envelope.recipients(), ARGUMENT_BYTES).into_iter().enumerate() {
            let first = index == 0;
            let outcome = if in_doubt {
                let why = "not attempted: what became of an earlier run is not known";
                Outcome::Deferred(Reply::local(451, "4.3.0", why))
            } else {
                match self.ready(message).await {
                    Ok(ready) => {
                        if first {
                            handover.before_handover().await.map_err(withdrawn)?;
                        }
                        runner.run(&arguments(envelope.reverse_path(), to), ready).await
                    }
                    Err(error) if first => return Err(error),
                    Err(error) => Outcome::Deferred(Reply::local(451, "4.3.0", error.to_string())),
                }
            };
            in_doubt |= matches!(outcome, Outcome::Unknown(_));
            outcomes.extend(std::iter::repeat_n(outcome, to.len()));
        }
        #[expect(
            clippy::expect_used,
            reason = "each recipient is in exactly one run, and each run gave its recipients one outcome each"
        )]
        let report =
            DeliveryReport::new(envelope, outcomes).expect("one outcome for each recipient");
        Ok(report)
    }

    fn check(&self, envelope: &Envelope) -> Result<()> {
        objection(envelope).map_or(Ok(()), |why| {
            Err(Error::new(ErrorKind::InvalidInput, "pass the envelope to a program", why)
                .with("reverse-path", envelope.reverse_path()))
        })
    }

    /// Whether the program is still there, may be executed and is not our own. It is not started.
    async fn probe(&self) -> Result<()> {
        inspect(&self.program).map_err(|unusable| unusable.outage(&self.program))
    }

    /// Does nothing: there are no connections, and programs that run end by themselves.
    async fn close(&self) {}
}

fn withdrawn(error: Error) -> Error {
    if error.kind() == ErrorKind::Cancelled {
        return error;
    }
    Error::new(ErrorKind::Cancelled, "announce the handover", error.to_string()).with_source(error)
}
