//! A mail goes with its savepoint.

use sendmail_sqlx::AttachExt;
use sqlx::Connection;

use crate::scene::{MODES, Scene, mail};

#[tokio::test]
async fn nested_transactions() {
    for mode in MODES {
        for (inner_commits, outer_commits, sent) in
            [(true, true, 2), (false, true, 1), (true, false, 0), (false, false, 0)]
        {
            let scene = Scene::new(mode).await;
            let delivery = scene.delivery().await;
            let mut outer = scene.pool.begin().await.unwrap();
            let (envelope, message) = mail();
            delivery.attach(&mut *outer, envelope, message).await.unwrap();
            let mut inner = outer.begin().await.unwrap();
            let (envelope, message) = mail();
            delivery.attach(&mut *inner, envelope, message).await.unwrap();
            if inner_commits {
                inner.commit().await.unwrap();
            } else {
                inner.rollback().await.unwrap();
            }
            if outer_commits {
                outer.commit().await.unwrap();
            } else {
                outer.rollback().await.unwrap();
            }
            let mut expected = scene.calls.staged()[..sent].to_vec();
            expected.sort();
            assert_eq!(scene.markers().await, expected);
        }
    }
}

/// The savepoint that was rolled back to is still there, and mail is attached after it again.
#[tokio::test]
async fn rollback_to_a_savepoint() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let delivery = scene.delivery().await;
        let mut tx = scene.pool.begin().await.unwrap();
        sqlx::raw_sql("SAVEPOINT mine").execute(&mut *tx).await.unwrap();
        let (envelope, message) = mail();
        delivery.attach(&mut *tx, envelope, message).await.unwrap();
        sqlx::raw_sql("ROLLBACK TO mine").execute(&mut *tx).await.unwrap();
        let (envelope, message) = mail();
        delivery.attach(&mut *tx, envelope, message).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(scene.markers().await, scene.calls.staged()[1..]);
    }
}
