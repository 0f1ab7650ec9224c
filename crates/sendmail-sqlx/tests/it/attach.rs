//! Transactions through which mail is attached, and what goes with them.

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::mock::MockQueueStore;
use sendmail_core::{
    Attach, Capabilities, Dialect, Error, ErrorKind, MarkerSink, ResourceId, Result,
};
use sendmail_sqlx::{AttachExt, SqlDelivery, SqlxConnection};
use sqlx::{Connection, Database};

use crate::scene::{Call, Calls, MODES, ORDER, Scene, clock, mail};

// Proves: D-attach
#[tokio::test]
async fn a_mail_goes_with_its_transaction() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let delivery = scene.delivery().await;

        let mut tx = scene.pool.begin().await.unwrap();
        sqlx::raw_sql(ORDER).execute(&mut *tx).await.unwrap();
        let (envelope, message) = mail();
        let message_id = delivery.attach(&mut *tx, envelope, message).await.unwrap();
        assert_eq!(message_id.as_str(), "<1@example.org>");
        assert!(scene.markers().await.is_empty(), "seen before the commit");
        tx.commit().await.unwrap();
        let committed = scene.markers().await;
        assert_eq!(committed, scene.calls.staged());
        assert_eq!(committed.len(), 1);

        let mut tx = scene.pool.begin().await.unwrap();
        sqlx::raw_sql(ORDER).execute(&mut *tx).await.unwrap();
        let (envelope, message) = mail();
        delivery.attach(&mut *tx, envelope, message).await.unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(scene.markers().await, committed);
        assert_eq!(scene.orders().await, 1);
        assert_eq!(scene.calls.staged().len(), 2, "it is recovery that throws away the second");
    }
}

/// The same message twice is two mails: an id is minted for each.
#[tokio::test]
async fn each_attach_has_an_id_of_its_own() {
    let scene = Scene::new(MODES[0]).await;
    let delivery = scene.delivery().await;
    let mut tx = scene.pool.begin().await.unwrap();
    for _ in 0..3 {
        let (envelope, message) = mail();
        delivery.attach(&mut *tx, envelope, message).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut staged = scene.calls.staged();
    staged.sort();
    staged.dedup();
    assert_eq!(staged.len(), 3);
    assert_eq!(scene.markers().await, staged);
}

/// Transactions that the driver knows nothing of: `BEGIN` by hand, and a savepoint as a transaction.
#[tokio::test]
async fn transactions_begun_by_hand() {
    for mode in MODES {
        for (begin, commit) in
            [("BEGIN", "COMMIT"), ("BEGIN IMMEDIATE", "COMMIT"), ("SAVEPOINT mine", "RELEASE mine")]
        {
            let scene = Scene::new(mode).await;
            let mut connection = scene.pool.acquire().await.unwrap();
            sqlx::raw_sql(begin).execute(&mut *connection).await.unwrap();
            let (envelope, message) = mail();
            scene.delivery().await.attach(&mut *connection, envelope, message).await.unwrap();
            sqlx::raw_sql(commit).execute(&mut *connection).await.unwrap();
            assert_eq!(scene.markers().await, scene.calls.staged(), "{begin}");
            assert_eq!(scene.markers().await.len(), 1, "{begin}");
        }
    }
}

/// Through a trait object, from code that is generic over the database, in another task.
#[tokio::test]
async fn generic_code_attaches_too() {
    async fn order<DB: Database>(
        delivery: &Arc<dyn Attach>,
        connection: &mut DB::Connection,
    ) -> Result<()>
    where
        DB::Connection: SqlxConnection,
    {
        let mut tx = connection.begin().await.unwrap();
        let (envelope, message) = mail();
        delivery.attach(&mut *tx, envelope, message).await?;
        tx.commit().await.unwrap();
        Ok(())
    }
    let scene = Scene::new(MODES[0]).await;
    let delivery: Arc<dyn Attach> = Arc::new(scene.delivery().await);
    let mut connection = scene.pool.acquire().await.unwrap();
    let task = tokio::spawn(async move { order::<sqlx::Sqlite>(&delivery, &mut connection).await });
    task.await.unwrap().unwrap();
    assert_eq!(scene.markers().await.len(), 1);
}

/// The message cannot be staged after the marker was left. The marker is taken back: it is not sent, even
/// if the application commits in spite of the error.
// Proves: D-attach
#[tokio::test]
async fn a_message_that_cannot_be_staged_is_not_sent_even_after_a_commit() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let delivery = scene.delivery_that_cannot_stage().await;
        let mut tx = scene.pool.begin().await.unwrap();
        sqlx::raw_sql(ORDER).execute(&mut *tx).await.unwrap();
        let (envelope, message) = mail();
        let error = delivery.attach(&mut *tx, envelope, message).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Io, "the disk is gone"));
        tx.commit().await.unwrap();
        assert_eq!((scene.orders().await, scene.markers().await.len()), (1, 0));
        let calls = scene.calls.all();
        assert!(matches!(calls[..], [Call::Write(a), Call::Discard(b)] if a == b), "{calls:?}");
    }
}

/// A connection that fails from its `fails_at`th text on, as if it had been cut.
struct Cut {
    dialect: Dialect,
    fails_at: usize,
    texts: Vec<String>,
}

#[async_trait]
impl MarkerSink for Cut {
    fn dialect(&self) -> Dialect {
        self.dialect
    }

    async fn batch(&mut self, sql: &str) -> Result<()> {
        self.texts.push(sql.to_owned());
        if self.texts.len() >= self.fails_at {
            return Err(Error::new(ErrorKind::Io, "run a statement", "connection reset"));
        }
        Ok(())
    }
}

/// Whether the marker is there nobody knows; the message may not be thrown away then.
#[tokio::test]
async fn in_doubt_the_message_is_kept() {
    for (fails_at, stages) in [(1, false), (2, true)] {
        let calls = Calls::default();
        let (written, staged) = (calls.clone(), calls.clone());
        let mut store = MockQueueStore::new();
        store.expect_capabilities().return_const(Capabilities::new());
        store.expect_resource_id().return_const("queue-1".parse::<ResourceId>().unwrap());
        store.expect_write().returning(move |new| {
            written.push(Call::Write(new.id));
            Ok(())
        });
        store.expect_stage().times(usize::from(stages)).returning(move |ids| {
            staged.push(Call::Stage(ids[0]));
            Err(Error::new(ErrorKind::Io, "stage the message", "the disk is gone"))
        });
        store.expect_discard().never();
        let resource = "db-1".parse().unwrap();
        let delivery = SqlDelivery::new(Arc::new(store), Arc::new(clock()), resource);
        let mut sink = Cut { dialect: Dialect::Postgres, fails_at, texts: Vec::new() };
        let (envelope, message) = mail();
        let error = delivery.attach_with(&mut sink, envelope, message).await.unwrap_err();
        assert!(error.to_string().contains("roll the transaction back"), "{error}");
        assert_eq!(sink.texts.len(), fails_at);
    }
}

/// Nothing is asked of the database before the message is written, and nothing staged before the marker
/// is left.
#[tokio::test]
async fn written_then_marked_then_staged() {
    struct Sink(Calls, Vec<usize>);

    #[async_trait]
    impl MarkerSink for Sink {
        fn dialect(&self) -> Dialect {
            Dialect::MySql
        }

        async fn batch(&mut self, _: &str) -> Result<()> {
            self.1.push(self.0.all().len());
            Ok(())
        }
    }
    let scene = Scene::new(MODES[0]).await;
    let mut sink = Sink(scene.calls.clone(), Vec::new());
    let (envelope, message) = mail();
    scene.delivery().await.attach_with(&mut sink, envelope, message).await.unwrap();
    assert_eq!(sink.1, [1], "one text, after the first call of the queue and before the second");
    let calls = scene.calls.all();
    assert!(matches!(calls[..], [Call::Write(a), Call::Stage(b)] if a == b), "{calls:?}");
}

/// An answer that no known SQLite gives is no yes.
#[tokio::test]
async fn an_unknown_answer_is_no_transaction() {
    struct Odd(Vec<String>);

    #[async_trait]
    impl MarkerSink for Odd {
        fn dialect(&self) -> Dialect {
            Dialect::Sqlite
        }

        async fn batch(&mut self, sql: &str) -> Result<()> {
            self.0.push(sql.to_owned());
            Ok(())
        }
    }
    let scene = Scene::new(MODES[0]).await;
    let mut sink = Odd(Vec::new());
    let (envelope, message) = mail();
    scene.delivery().await.attach_with(&mut sink, envelope, message).await.unwrap_err();
    assert_eq!(sink.0.len(), 1, "nothing was inserted");
    assert_eq!(scene.calls.staged(), []);
}
