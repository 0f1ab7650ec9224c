//! Attaching, with the future dropped after each number of polls.

use std::pin::pin;
use std::task::Poll;

use sendmail_sqlx::AttachExt;
use sqlx::SqliteConnection;

use crate::scene::{MODES, ORDER, Scene, mail};

/// Polls `attach` at most `polls` times. Whether it ended.
async fn attach(scene: &Scene, connection: &mut SqliteConnection, polls: usize) -> bool {
    let delivery = scene.delivery().await;
    let (envelope, message) = mail();
    let mut future = pin!(delivery.attach(&mut *connection, envelope, message));
    for _ in 0..polls {
        let once = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
        if once.await.is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

/// Inside a transaction: the transaction goes on, and takes at most the one marker along.
#[tokio::test]
async fn in_a_transaction_the_connection_stays_in_step() {
    for mode in MODES {
        for polls in 0.. {
            let scene = Scene::new(mode).await;
            let mut tx = scene.pool.begin().await.unwrap();
            let ended = attach(&scene, &mut tx, polls).await;
            sqlx::raw_sql(ORDER).execute(&mut *tx).await.unwrap();
            let (envelope, message) = mail();
            scene.delivery().await.attach(&mut *tx, envelope, message).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(scene.orders().await, 1, "after {polls} polls");
            let (markers, staged) = (scene.markers().await, scene.calls.staged());
            assert!(staged.iter().all(|id| markers.contains(id)), "staged without a marker");
            assert!(markers.len() <= 2);
            if ended {
                break;
            }
        }
    }
}

/// Outside of one: none is opened, whenever the future is dropped, so that what is written afterwards is
/// committed at once.
#[tokio::test]
async fn in_autocommit_no_transaction_is_left_open() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let mut connection = scene.pool.acquire().await.unwrap();
        for round in 0..200 {
            attach(&scene, &mut connection, round % 4).await;
            sqlx::raw_sql(ORDER).execute(&mut *connection).await.unwrap();
            assert_eq!(scene.orders().await, i64::from(i32::try_from(round).unwrap()) + 1);
        }
        assert!(scene.markers().await.is_empty());
    }
}
