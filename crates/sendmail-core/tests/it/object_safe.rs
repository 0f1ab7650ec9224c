//! Every trait is object safe, and every trait object can be shared between threads.

use std::sync::Arc;

use sendmail_core::{
    Attach, Clock, DataManager, DecisionLog, DecisionStore, EventLog, EventSink, Handover,
    MailDelivery, Mailer, MarkerSink, QueueAdmin, QueueStore,
};

fn shared<T: ?Sized + Send + Sync>() {}
fn owned<T: ?Sized + Send>() {}

#[test]
fn traits_are_object_safe() {
    shared::<Arc<dyn Attach>>();
    shared::<Arc<dyn Clock>>();
    shared::<Arc<dyn DataManager>>();
    shared::<Arc<dyn DecisionLog>>();
    shared::<Arc<dyn DecisionStore>>();
    shared::<Arc<dyn EventLog>>();
    shared::<Arc<dyn EventSink>>();
    shared::<Arc<dyn Handover>>();
    shared::<Arc<dyn MailDelivery>>();
    shared::<Arc<dyn Mailer>>();
    shared::<Arc<dyn QueueAdmin>>();
    shared::<Arc<dyn QueueStore>>();
    owned::<Box<dyn MarkerSink>>();
}
