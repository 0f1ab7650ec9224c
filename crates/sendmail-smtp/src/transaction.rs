//! Mail transactions: MAIL, RCPT, DATA and the final dot on one connection.

use sendmail_core::{Handover, Message, Outcome, Reply, Result};

use crate::classify::{Ledger, Step, wants_authentication};
use crate::connection::Connection;
use crate::overlap::Lease;
use crate::plan::Plan;
use crate::reply::WireReply;
use crate::stuffing::stuffed_pieces;
use crate::trouble::Broken;
use crate::wire::Drained;

/// How much of a body is gathered before it is written.
const BLOCK: usize = 64 * 1024;

/// The handover of one message, announced at most once however many transactions it takes.
pub(crate) struct Announcement<'a> {
    handover: &'a dyn Handover,
    made: bool,
}

impl<'a> Announcement<'a> {
    pub(crate) fn new(handover: &'a dyn Handover) -> Self {
        Self { handover, made: false }
    }

    async fn make(&mut self) -> Result<()> {
        if !self.made {
            self.handover.before_handover().await?;
            self.made = true;
        }
        Ok(())
    }
}

/// How an attempt on one connection ended.
pub(crate) enum Ended {
    /// With an outcome for each recipient.
    Outcomes(Vec<Outcome>),
    /// The connection had been kept, and the relay had given it up: nothing of the message was said.
    Stale,
    /// The relay wants authentication or encryption before MAIL.
    Unauthenticated(WireReply),
}

/// Why a transaction, and with it the connection, came to an end out of order.
enum Stop {
    Stale,
    Unauthenticated(WireReply),
    Lost(Reply),
    LostAfterDot(Reply),
    /// The ledger knows already.
    Known,
}

/// The commands of a message's first transaction, to be said behind the message before it.
pub(crate) fn first_commands(plan: &Plan) -> String {
    let recipients = Ledger::new(plan.decided()).begin();
    if recipients.is_empty() { String::new() } else { commands(plan, &recipients, false).concat() }
}

/// Sends one message to all recipients, in as many transactions as the relay makes of it. `said` means
/// that the first commands have been said already, behind the message before it.
pub(crate) async fn deliver(
    lease: &mut Lease,
    plan: &Plan,
    message: &Message,
    announcement: &mut Announcement<'_>,
    said: bool,
) -> Ended {
    let mut ledger = Ledger::new(plan.decided());
    let mut first = true;
    loop {
        let recipients = ledger.begin();
        if recipients.is_empty() {
            break;
        }
        let said = said && first;
        let transaction = Transaction { plan, message, recipients, first, said };
        first = false;
        let ended = transaction.run(lease, &mut ledger, announcement).await;
        let Err(stop) = ended else { continue };
        lease.connection.broken = true;
        match stop {
            Stop::Stale => return Ended::Stale,
            Stop::Unauthenticated(reply) => return Ended::Unauthenticated(reply),
            Stop::Lost(why) => ledger.lost(&why),
            Stop::LostAfterDot(why) => ledger.lost_after_dot(&why),
            Stop::Known => {}
        }
    }
    Ended::Outcomes(ledger.finish())
}

/// What the commands before the body have come to.
enum Answer {
    /// The relay waits for the body.
    Body,
    /// It waits for a body, and nobody is to get one.
    NobodysBody,
    /// The transaction is over.
    Over,
}

struct Transaction<'a> {
    plan: &'a Plan,
    message: &'a Message,
    /// Indices into the envelope.
    recipients: Vec<usize>,
    /// Nothing has been answered of the message yet.
    first: bool,
    /// Its commands are on their way.
    said: bool,
}

impl Transaction<'_> {
    async fn run(
        &self,
        lease: &mut Lease,
        ledger: &mut Ledger,
        announcement: &mut Announcement<'_>,
    ) -> Result<(), Stop> {
        let before = self.said.then(|| ledger.clone());
        let answer = self.commands(&mut lease.connection, ledger).await;
        if let Some(before) = before {
            let in_step = match &answer {
                // A 354 in its place shows that the replies before it were in theirs.
                Ok(Answer::Body | Answer::NobodysBody) => true,
                Ok(Answer::Over) => is_in_step(&mut lease.connection).await,
                Err(_) => false,
            };
            if !in_step {
                *ledger = before;
                return Err(Stop::Stale);
            }
        }
        match answer? {
            Answer::Body => self.body(lease, ledger, announcement).await,
            Answer::NobodysBody => lone_dot(&mut lease.connection).await,
            Answer::Over => Ok(()),
        }
    }

    /// MAIL, RCPT and DATA, and what is answered.
    async fn commands(
        &self,
        connection: &mut Connection,
        ledger: &mut Ledger,
    ) -> Result<Answer, Stop> {
        let mut flight = self.flight(connection);
        let times = connection.timeouts.clone();
        let stale = self.first && connection.reused;
        let or_stale = |broken: Broken, step: &str| match stale {
            true => Stop::Stale,
            false => Stop::Lost(broken.to_reply(step)),
        };
        if connection.unfinished {
            let reply = connection.ask(flight.next(), times.command).await;
            let reply =
                reply.map_err(|broken| or_stale(broken, "waiting for the reply to RSET"))?;
            if !reply.is_class(2) {
                return Err(or_stale(Broken::Unexpected(reply.to_reply()), "in reply to RSET"));
            }
        }
        connection.unfinished = true;
        let mail = connection.ask(flight.next(), times.mail).await;
        let mail = mail.map_err(|broken| or_stale(broken, "waiting for the reply to MAIL"))?;
        if stale && mail.code() == 421 {
            return Err(Stop::Stale);
        }
        if self.first && wants_authentication(&mail) {
            return Err(Stop::Unauthenticated(mail));
        }
        let accepted = go_on(ledger.mail(&mail))? == Step::Go;
        for index in &self.recipients {
            if accepted || flight.pipelined {
                let rcpt = connection.ask(flight.next(), times.rcpt).await;
                let rcpt =
                    rcpt.map_err(|b| Stop::Lost(b.to_reply("waiting for the reply to RCPT")))?;
                if accepted {
                    go_on(ledger.rcpt(*index, &rcpt))?;
                }
            }
        }
        let somebody = accepted && ledger.anybody_taken();
        if !somebody && !flight.pipelined {
            return Ok(Answer::Over);
        }
        let data = connection.ask(flight.next(), times.data).await;
        let data = data.map_err(|b| Stop::Lost(b.to_reply("waiting for the reply to DATA")))?;
        if !somebody {
            return Ok(if data.is_class(3) { Answer::NobodysBody } else { Answer::Over });
        }
        let step = go_on(ledger.data(&data))?;
        Ok(if step == Step::Go { Answer::Body } else { Answer::Over })
    }

    fn flight(&self, connection: &Connection) -> Flight {
        if self.said {
            return Flight::said();
        }
        let lines = commands(self.plan, &self.recipients, connection.unfinished);
        Flight::new(lines, connection.capabilities.pipelining)
    }

    /// The body, the announcement, the dot, in this order.
    async fn body(
        &self,
        lease: &mut Lease,
        ledger: &mut Ledger,
        announcement: &mut Announcement<'_>,
    ) -> Result<(), Stop> {
        let connection = &mut lease.connection;
        let lost = |broken: Broken| Stop::Lost(broken.to_reply("sending the message"));
        let bytes = self.message.as_bytes();
        let mut pieces = stuffed_pieces(bytes, BLOCK).peekable();
        while let Some(piece) = pieces.next() {
            connection.gather(&piece);
            // The last block stays gathered, and leaves together with the dot.
            let last = pieces.peek().is_none();
            let drained = if last { connection.listen().await } else { connection.drain().await };
            if drained.map_err(lost)? == Drained::Interrupted {
                return Err(self.interrupted(connection, ledger).await);
            }
        }
        if let Err(error) = announcement.make().await {
            let text = format!("not sent: {error}");
            return Err(Stop::Lost(Reply::local(451, "4.3.0", text)));
        }
        // The announcement took its time. A relay that has left meanwhile leaves no doubt.
        if connection.listen().await.map_err(lost)? == Drained::Interrupted {
            return Err(self.interrupted(connection, ledger).await);
        }
        connection.write_dot().await;
        if !ledger.anybody_postponed() {
            lease.offer();
        }
        let connection = &mut lease.connection;
        let time = connection.timeouts.final_dot;
        let dot = connection.exchange(None, time).await.map_err(|broken| {
            Stop::LostAfterDot(broken.to_reply("waiting for the reply to the message"))
        })?;
        go_on(ledger.dot(&dot))?;
        connection.unfinished = false;
        Ok(())
    }

    /// The relay spoke before the dot: what it said is its last word on this connection.
    async fn interrupted(&self, connection: &mut Connection, ledger: &mut Ledger) -> Stop {
        match connection.exchange(None, connection.timeouts.data).await {
            Ok(reply) => {
                ledger.early(&reply);
                Stop::Known
            }
            Err(broken) => Stop::Lost(broken.to_reply("sending the message")),
        }
    }
}

/// Whether the replies are in step with the commands, which were said before the reply to the last message was
/// there: a relay that answered that twice has answered each of them one too early, and of whom a refusal
/// spoke is not known. Of a transaction that ends without a body the next reply tells.
async fn is_in_step(connection: &mut Connection) -> bool {
    let time = connection.timeouts.command;
    let reply = connection.ask(Some("RSET\r\n".to_owned()), time).await;
    let in_step = reply.is_ok_and(|reply| reply.is_class(2));
    connection.unfinished &= !in_step;
    in_step
}

/// Nobody was accepted and the relay waits for a message all the same: it gets an empty one, for
/// nobody, and what it says of it counts for nothing (RFC 2920 section 3.1).
async fn lone_dot(connection: &mut Connection) -> Result<(), Stop> {
    let time = connection.timeouts.final_dot;
    match connection.exchange(Some(".\r\n".to_owned()), time).await {
        Ok(_) => {
            connection.unfinished = false;
            Ok(())
        }
        Err(_) => Err(Stop::Known),
    }
}

fn go_on(step: Step) -> Result<Step, Stop> {
    if step == Step::Lost { Err(Stop::Known) } else { Ok(step) }
}

/// The commands of a transaction, each with its line end.
fn commands(plan: &Plan, recipients: &[usize], reset: bool) -> Vec<String> {
    let reset = reset.then_some("RSET");
    let rcpts = recipients.iter().map(|index| plan.rcpt(*index));
    let lines = reset.into_iter().chain([plan.mail.as_str()]).chain(rcpts).chain(["DATA"]);
    lines.map(|line| format!("{line}\r\n")).collect()
}

/// The commands before the body, in one piece or one by one.
struct Flight {
    lines: std::vec::IntoIter<String>,
    pipelined: bool,
}

impl Flight {
    fn new(lines: Vec<String>, pipelined: bool) -> Self {
        let lines = if pipelined { vec![lines.concat()] } else { lines };
        Self { lines: lines.into_iter(), pipelined }
    }

    /// One that is on its way.
    fn said() -> Self {
        Self { lines: Vec::new().into_iter(), pipelined: true }
    }

    /// What is to be written before the next reply is read.
    fn next(&mut self) -> Option<String> {
        self.lines.next()
    }
}
