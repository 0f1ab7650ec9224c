//! One queue, a delivery into it, and a transaction manager.

use sendmail_txn::{QueuedDelivery, TransactionManager};

use crate::fake::{FakeQueue, World, clock};

/// What most tests of whole transactions start from.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) queue: FakeQueue,
    pub(crate) delivery: QueuedDelivery,
    pub(crate) transactions: TransactionManager,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let world = World::default();
        let queue = FakeQueue::new("queue", &world);
        let delivery = QueuedDelivery::new(queue.shared(), clock());
        Self { world, queue, delivery, transactions: TransactionManager::new(clock()) }
    }
}
