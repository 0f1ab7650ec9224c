//! Handlers of events that fail in every way a server knows: each effect happens once all the same.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    Clock as _, Error, ErrorKind, MailEvent, MailEventKind, QueueStore as _, Result,
};
use sendmail_sqlx::{
    AttachExt as _, EventDatabase, EventSource, SqlDelivery, SqlEventConsumer, SqlEventHandler,
};
use sqlx::pool::PoolOptions;
use sqlx::{MySql, Pool, Postgres};

use crate::support::{ORDER, Shop, Tested, mail, on_each_server};

on_each_server! {
    sends_mail_with_its_effect => event_mail_postgres, event_mail_mariadb;
    loses_its_connection => event_cut_postgres, event_cut_mariadb;
    rolls_back_by_itself => event_rollback_postgres, event_rollback_mariadb;
    commits_by_itself => event_commit_postgres, event_commit_mariadb;
    shares_its_name => event_shared_postgres, event_shared_mariadb;
}

/// What differs between the servers.
trait Failing: Tested + EventDatabase {
    /// Ends the connection that says it.
    const CUT: &'static str;
}

impl Failing for Postgres {
    const CUT: &'static str = "SELECT pg_terminate_backend(pg_backend_pid())";
}

impl Failing for MySql {
    const CUT: &'static str = "KILL CONNECTION_ID()";
}

/// Writes an order for each event and then does as the script says.
#[derive(Default)]
struct Handler {
    delivery: Option<SqlDelivery>,
    script: Mutex<Vec<Then>>,
}

#[derive(Clone, Copy)]
enum Then {
    Fail,
    /// Says this, and hides what comes of it.
    Say(&'static str),
}

#[async_trait]
impl<DB: Failing> SqlEventHandler<DB> for Handler {
    async fn handle(&self, tx: &mut DB::Connection, _: &MailEvent) -> Result<()> {
        let failed =
            |error: sqlx::Error| Error::new(ErrorKind::Io, "write an order", error.to_string());
        DB::execute(tx, ORDER).await.map_err(failed)?;
        if let Some(delivery) = &self.delivery {
            let (envelope, message) = mail();
            delivery.attach(tx, envelope, message).await?;
        }
        let next = self.script.lock().unwrap().pop();
        match next {
            None => Ok(()),
            Some(Then::Fail) => Err(Error::new(ErrorKind::Refused, "handle", "injected")),
            Some(Then::Say(sql)) => {
                let _ = DB::execute(tx, sql).await;
                Ok(())
            }
        }
    }
}

type Told = Arc<Mutex<Vec<String>>>;

fn consumer<DB: Failing>(
    shop: &Shop<DB>,
    pool: &Pool<DB>,
    handler: &Arc<Handler>,
) -> (SqlEventConsumer<DB>, Told) {
    let told = Told::default();
    let hook = told.clone();
    let consumer = SqlEventConsumer::new(
        "orders",
        EventSource::of(&Arc::new(shop.queue.clone())),
        pool.clone(),
        shop.clock.clone(),
        handler.clone(),
        Arc::new(move |trouble| hook.lock().unwrap().push(trouble.error.to_string())),
    );
    (consumer.unwrap(), told)
}

async fn log_events<DB: Tested>(shop: &Shop<DB>, count: usize) {
    for _ in 0..count {
        let event = MailEvent::new(MailEventKind::RelayPaused, shop.clock.now());
        shop.queue.announce(&event).await.unwrap();
    }
}

/// One event fails once, by `then`, and is handled when it is tried again. Returns what was told.
async fn fails_once<DB: Failing>(test: &str, then: Then, with_mail: bool) -> Option<String> {
    let shop = Shop::<DB>::open(test).await?;
    log_events(&shop, 2).await;
    let delivery = if with_mail { Some(shop.delivery().await) } else { None };
    let handler = Arc::new(Handler { delivery, script: Mutex::new(vec![then]) });
    let (mut consumer, told) = consumer(&shop, &shop.pool, &handler);
    let pause = consumer.poll().await.unwrap().waits.expect("the event did not fail");
    assert_eq!((shop.orders().await, shop.markers().await.len()), (0, 0));
    shop.clock.advance(pause);
    assert_eq!(consumer.poll().await.unwrap().handled, 2);
    assert_eq!(shop.orders().await, 2);
    assert_eq!(shop.markers().await.len(), if with_mail { 2 } else { 0 });
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    Some(told[0].clone())
}

async fn sends_mail_with_its_effect<DB: Failing>(test: &str) {
    fails_once::<DB>(test, Then::Fail, true).await;
}

async fn loses_its_connection<DB: Failing>(test: &str) {
    fails_once::<DB>(test, Then::Say(DB::CUT), true).await;
}

async fn rolls_back_by_itself<DB: Failing>(test: &str) {
    let Some(told) = fails_once::<DB>(test, Then::Say("ROLLBACK"), false).await else { return };
    assert!(told.contains("underneath the handler"), "{told}");
}

#[tokio::test]
async fn event_error_hidden_postgres() {
    let then = Then::Say("SELECT 1 / 0");
    let told = fails_once::<Postgres>("event_error_hidden_postgres", then, true).await;
    assert!(told.is_none_or(|told| told.contains("underneath the handler")));
}

async fn commits_by_itself<DB: Failing>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    log_events(&shop, 2).await;
    let script = Mutex::new(vec![Then::Say("COMMIT")]);
    let handler = Arc::new(Handler { script, ..Handler::default() });
    let (mut consumer, _) = consumer(&shop, &shop.pool, &handler);
    assert_eq!(consumer.poll().await.unwrap().handled, 2);
    assert_eq!(shop.orders().await, 2);
}

/// At REPEATABLE READ, where a row that another has changed is an error on PostgreSQL.
async fn shares_its_name<DB: Failing>(test: &str) {
    let level = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ";
    // MariaDB does not know this text, and has this level by default.
    share::<DB>(test, level).await;
}

/// A connection that is in a transaction always would see the cursor as it once was.
#[tokio::test]
async fn event_without_autocommit_mariadb() {
    share::<MySql>("event_without_autocommit_mariadb", "SET autocommit = 0").await;
}

/// Four consumers of one name, whose connections were told `setting`, share the events.
async fn share<DB: Failing>(test: &str, setting: &'static str) {
    const EVENTS: usize = 200;
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    log_events(&shop, EVENTS).await;
    let set = PoolOptions::new().max_connections(8).after_connect(move |connection, _| {
        Box::pin(async move {
            let _ = DB::execute(connection, setting).await;
            Ok(())
        })
    });
    let options = shop.pool.connect_options().as_ref().clone();
    let pool: Pool<DB> = set.connect_with(options).await.unwrap();
    let handler = Arc::new(Handler::default());
    let mut tasks = Vec::new();
    let mut all_told = Vec::new();
    for _ in 0..4 {
        let (mut consumer, told) = consumer(&shop, &pool, &handler);
        all_told.push(told);
        tasks.push(tokio::spawn(async move { consumer.poll().await.unwrap().handled }));
    }
    let mut handled = 0;
    for task in tasks {
        handled += tokio::time::timeout(Duration::from_secs(60), task).await.unwrap().unwrap();
    }
    assert_eq!(handled, EVENTS);
    assert_eq!(usize::try_from(shop.orders().await).unwrap(), EVENTS);
    assert!(all_told.iter().all(|told| told.lock().unwrap().is_empty()), "{all_told:?}");
}
