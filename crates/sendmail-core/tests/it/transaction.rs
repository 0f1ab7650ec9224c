//! Who may join a transaction.

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{
    DataManager, Decision, DecisionStore, ErrorKind, Order, PrepareContext, QueueId, ResourceId,
    Result, SavepointMark, Timestamp, Transaction, TransactionId, TransactionStatus, Vote,
};

struct Manager {
    name: &'static str,
    order: Order,
    can_be_asked: bool,
    needs_decision: bool,
}

const MAIL: Manager =
    Manager { name: "mail", order: Order::Normal, can_be_asked: false, needs_decision: true };
const DATABASE: Manager =
    Manager { name: "db", order: Order::LastResource, can_be_asked: true, needs_decision: false };

struct Oracle(ResourceId);

#[async_trait]
impl DecisionStore for Oracle {
    fn resource_id(&self) -> &ResourceId {
        &self.0
    }
    async fn visible(&self, _: &[QueueId]) -> Result<Vec<QueueId>> {
        Ok(Vec::new())
    }
    async fn fence(&self, _: QueueId, _: std::time::Duration) -> Result<Decision> {
        Ok(Decision::Unfinished)
    }
    async fn forget(&self, _: &[QueueId]) -> Result<()> {
        Ok(())
    }
    async fn remembered(&self, _: std::time::Duration, _: usize) -> Result<Vec<QueueId>> {
        Ok(Vec::new())
    }
    async fn sweep(&self) -> Result<usize> {
        Ok(0)
    }
}

#[async_trait]
impl DataManager for Manager {
    fn name(&self) -> &str {
        self.name
    }
    fn order(&self) -> Order {
        self.order
    }
    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        let oracle = || Arc::new(Oracle("db".parse().unwrap())) as Arc<dyn DecisionStore>;
        self.can_be_asked.then(oracle)
    }
    fn needs_decision(&self) -> bool {
        self.needs_decision
    }
    async fn savepoint(&mut self) -> Result<SavepointMark> {
        Ok(SavepointMark(0))
    }
    async fn rollback_to(&mut self, _: SavepointMark) -> Result<()> {
        Ok(())
    }
    async fn prepare(&mut self, _: &mut PrepareContext) -> Result<Vote> {
        Ok(Vote::Yes)
    }
    async fn commit(&mut self) -> Result<()> {
        Ok(())
    }
    async fn abort(&mut self) {}
}

fn join(managers: Vec<Manager>) -> Result<Transaction> {
    let mut transaction = Transaction::new(TransactionId::mint(Timestamp::EPOCH));
    for manager in managers {
        transaction.join(Box::new(manager))?;
    }
    Ok(transaction)
}

#[test]
fn mail_and_a_database_that_can_be_asked_go_together() {
    let mut transaction = join(vec![MAIL, DATABASE]).unwrap();
    assert!(transaction.joined::<Manager>("mail").is_some_and(|manager| manager.needs_decision));
    assert!(transaction.joined::<Manager>("other").is_none());
}

#[test]
fn mail_with_a_last_resource_that_cannot_be_asked_is_refused_in_either_order() {
    let mute = || Manager { can_be_asked: false, ..DATABASE };
    for managers in [vec![MAIL, mute()], vec![mute(), MAIL]] {
        assert_eq!(join(managers).unwrap_err().kind(), ErrorKind::InvalidState);
    }
    assert!(join(vec![mute()]).is_ok());
}

#[test]
fn only_one_decides_and_names_are_unique() {
    let second = Manager { name: "db2", ..DATABASE };
    assert_eq!(join(vec![DATABASE, second]).unwrap_err().kind(), ErrorKind::InvalidState);
    assert_eq!(join(vec![MAIL, MAIL]).unwrap_err().kind(), ErrorKind::InvalidState);
}

#[test]
fn nobody_joins_a_transaction_that_ends() {
    let mut transaction = join(vec![]).unwrap();
    transaction.set_status(TransactionStatus::Ending);
    let error = transaction.join(Box::new(MAIL)).unwrap_err();
    assert!(error.to_string().contains("not active"), "{error}");
}
