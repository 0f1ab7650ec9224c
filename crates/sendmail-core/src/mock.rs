//! A [mockall](https://docs.rs/mockall) mock of every trait of this crate, for tests of their callers.
//!
//! Use them where the absence or the order of calls is the point; where a working counterpart is
//! wanted, `sendmail-testkit` has one.
//!
//! Three methods take a trait object by reference, which mockall cannot express. Their mocks carry the
//! call out by themselves and ask a simpler method for the answer: see [`MockMailer`],
//! [`MockQueueAdmin`] and [`MockAttach`].

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mockall::mock;

use crate::*;

mock! {
    /// A mock of [`Mailer`]. `send` of the trait asks `announces` whether to await the handover, and
    /// then answers with `answer`.
    pub Mailer {
        /// [`Mailer::relay`].
        pub fn relay(&self) -> &str;
        /// Whether `send` awaits the handover before it answers.
        pub fn announces(&self) -> bool;
        /// What `send` answers.
        pub fn answer(&self, envelope: &Envelope, message: &Message) -> Result<DeliveryReport>;
        /// [`Mailer::check`].
        pub fn check(&self, envelope: &Envelope) -> Result<()>;
        /// [`Mailer::probe`].
        pub fn probe(&self) -> Result<()>;
        /// [`Mailer::close`].
        pub fn close(&self);
    }
}

#[async_trait]
impl Mailer for MockMailer {
    fn relay(&self) -> &str {
        self.relay()
    }

    async fn send(
        &self,
        envelope: &Envelope,
        message: &Message,
        handover: &dyn Handover,
    ) -> Result<DeliveryReport> {
        if self.announces() {
            handover.before_handover().await?;
        }
        self.answer(envelope, message)
    }

    fn check(&self, envelope: &Envelope) -> Result<()> {
        self.check(envelope)
    }

    async fn probe(&self) -> Result<()> {
        self.probe()
    }

    async fn close(&self) {
        self.close();
    }
}

mock! {
    /// A mock of [`Handover`].
    pub Handover {}
    #[async_trait]
    impl Handover for Handover {
        async fn before_handover(&self) -> Result<()>;
    }
}

mock! {
    /// A mock of [`QueueStore`].
    pub QueueStore {}
    #[async_trait]
    impl QueueStore for QueueStore {
        fn resource_id(&self) -> &ResourceId;
        fn capabilities(&self) -> Capabilities;
        fn decision_log(&self) -> Option<Arc<dyn DecisionLog>>;
        fn decision_store(&self) -> Option<Arc<dyn DecisionStore>>;
        async fn write(&self, new: &NewMessage) -> Result<()>;
        async fn stage(&self, ids: &[QueueId]) -> Result<()>;
        async fn publish(&self, ids: &[QueueId]) -> Result<()>;
        async fn discard(&self, ids: &[QueueId], why: Discard) -> Result<Vec<MailEvent>>;
        async fn undecided(&self) -> Result<Vec<Undecided>>;
        async fn known(&self, ids: &[QueueId]) -> Result<Vec<QueueId>>;
        async fn is_frozen(&self) -> Result<bool>;
        async fn claim(&self, max: usize) -> Result<Claimed>;
        async fn load(&self, claim: &Claim) -> Result<Loaded>;
        async fn renew(&self, claim: &Claim) -> Result<()>;
        async fn record(&self, claim: &Claim, step: Step) -> Result<()>;
        async fn settle(
            &self,
            claim: Claim,
            settlement: Settlement,
        ) -> std::result::Result<Vec<MailEvent>, Unsettled>;
        async fn announce(&self, event: &MailEvent) -> Result<()>;
        async fn wait_for_work(&self, timeout: Duration);
        async fn sweep(&self) -> Result<SweepReport>;
    }
}

mock! {
    /// A mock of [`QueueAdmin`]. `list` of the trait shows what `entries` answers.
    pub QueueAdmin {
        /// What `list` shows.
        pub fn entries(&self, filter: &Filter) -> Result<Vec<Entry>>;
        /// [`QueueAdmin::show`].
        pub fn show(&self, id: QueueId) -> Result<EntryDetail>;
        /// [`QueueAdmin::hold`].
        pub fn hold(&self, id: QueueId) -> Result<AdminOutcome>;
        /// [`QueueAdmin::release`].
        pub fn release(&self, id: QueueId) -> Result<AdminOutcome>;
        /// [`QueueAdmin::retry_now`].
        pub fn retry_now(&self, id: QueueId) -> Result<AdminOutcome>;
        /// [`QueueAdmin::remove`].
        pub fn remove(&self, id: QueueId) -> Result<AdminOutcome>;
        /// [`QueueAdmin::put_back`].
        pub fn put_back(&self, id: QueueId) -> Result<AdminOutcome>;
        /// [`QueueAdmin::set_frozen`].
        pub fn set_frozen(&self, frozen: bool) -> Result<bool>;
        /// [`QueueAdmin::statistics`].
        pub fn statistics(&self) -> Result<Statistics>;
    }
}

#[async_trait]
impl QueueAdmin for MockQueueAdmin {
    async fn list(
        &self,
        filter: &Filter,
        visit: &mut (dyn FnMut(Entry) -> ControlFlow<()> + Send),
    ) -> Result<()> {
        for entry in self.entries(filter)? {
            if visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    async fn show(&self, id: QueueId) -> Result<EntryDetail> {
        self.show(id)
    }

    async fn hold(&self, id: QueueId) -> Result<AdminOutcome> {
        self.hold(id)
    }

    async fn release(&self, id: QueueId) -> Result<AdminOutcome> {
        self.release(id)
    }

    async fn retry_now(&self, id: QueueId) -> Result<AdminOutcome> {
        self.retry_now(id)
    }

    async fn remove(&self, id: QueueId) -> Result<AdminOutcome> {
        self.remove(id)
    }

    async fn put_back(&self, id: QueueId) -> Result<AdminOutcome> {
        self.put_back(id)
    }

    async fn set_frozen(&self, frozen: bool) -> Result<bool> {
        self.set_frozen(frozen)
    }

    async fn statistics(&self) -> Result<Statistics> {
        self.statistics()
    }
}

mock! {
    /// A mock of [`DecisionStore`].
    pub DecisionStore {}
    #[async_trait]
    impl DecisionStore for DecisionStore {
        fn resource_id(&self) -> &ResourceId;
        async fn visible(&self, ids: &[QueueId]) -> Result<Vec<QueueId>>;
        async fn fence(&self, id: QueueId, timeout: Duration) -> Result<Decision>;
        async fn forget(&self, ids: &[QueueId]) -> Result<()>;
        async fn remembered(&self, age: Duration, limit: usize) -> Result<Vec<QueueId>>;
        async fn sweep(&self) -> Result<usize>;
    }
}

mock! {
    /// A mock of [`DecisionLog`].
    pub DecisionLog {}
    #[async_trait]
    impl DecisionStore for DecisionLog {
        fn resource_id(&self) -> &ResourceId;
        async fn visible(&self, ids: &[QueueId]) -> Result<Vec<QueueId>>;
        async fn fence(&self, id: QueueId, timeout: Duration) -> Result<Decision>;
        async fn forget(&self, ids: &[QueueId]) -> Result<()>;
        async fn remembered(&self, age: Duration, limit: usize) -> Result<Vec<QueueId>>;
        async fn sweep(&self) -> Result<usize>;
    }
    #[async_trait]
    impl DecisionLog for DecisionLog {
        async fn propose(&self, transaction: TransactionId, ids: &[QueueId]) -> Result<()>;
        async fn decide(&self, transaction: TransactionId) -> Result<()>;
        async fn retract(&self, transaction: TransactionId) -> Result<()>;
    }
}

mock! {
    /// A mock of [`DataManager`].
    pub DataManager {}
    #[async_trait]
    impl DataManager for DataManager {
        fn name(&self) -> &str;
        fn order(&self) -> Order;
        fn decision_store(&self) -> Option<Arc<dyn DecisionStore>>;
        fn needs_decision(&self) -> bool;
        async fn savepoint(&mut self) -> Result<SavepointMark>;
        async fn rollback_to(&mut self, mark: SavepointMark) -> Result<()>;
        async fn prepare(&mut self, context: &mut PrepareContext) -> Result<Vote>;
        async fn commit(&mut self) -> Result<()>;
        async fn abort(&mut self);
    }
}

mock! {
    /// A mock of [`MailDelivery`].
    pub MailDelivery {}
    #[async_trait]
    impl MailDelivery for MailDelivery {
        async fn send(
            &self,
            transaction: &mut Transaction,
            envelope: Envelope,
            message: Message,
        ) -> Result<MessageId>;
    }
}

mock! {
    /// A mock of [`EventSink`].
    pub EventSink {}
    #[async_trait]
    impl EventSink for EventSink {
        async fn emit(&self, event: &MailEvent);
    }
}

mock! {
    /// A mock of [`EventLog`].
    pub EventLog {}
    #[async_trait]
    impl EventLog for EventLog {
        async fn read(&self, after: Option<Cursor>, limit: usize) -> Result<EventPage>;
    }
}

mock! {
    /// A mock of [`Clock`].
    pub Clock {}
    #[async_trait]
    impl Clock for Clock {
        fn now(&self) -> Timestamp;
        async fn sleep(&self, duration: Duration);
    }
}

mock! {
    /// A mock of [`MarkerSink`].
    pub MarkerSink {}
    #[async_trait]
    impl MarkerSink for MarkerSink {
        fn dialect(&self) -> Dialect;
        async fn batch(&mut self, sql: &str) -> Result<()>;
    }
}

mock! {
    /// A mock of [`Attach`]. `attach_with` of the trait sends the text that `marker` answers.
    pub Attach {
        /// The text that is sent through the sink, and the answer.
        pub fn marker(&self, envelope: Envelope, message: Message) -> Result<(String, MessageId)>;
    }
}

#[async_trait]
impl Attach for MockAttach {
    async fn attach_with(
        &self,
        sink: &mut dyn MarkerSink,
        envelope: Envelope,
        message: Message,
    ) -> Result<MessageId> {
        let (sql, id) = self.marker(envelope, message)?;
        sink.batch(&sql).await?;
        Ok(id)
    }
}
