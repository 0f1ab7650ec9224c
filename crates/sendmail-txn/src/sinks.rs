//! Telling several sinks of one event.

use std::sync::Arc;

use sendmail_core::{EventSink, MailEvent};

use crate::panics::caught;

/// The sinks of one source of events.
#[derive(Clone, Default)]
pub(crate) struct Sinks(Vec<Arc<dyn EventSink>>);

impl FromIterator<Arc<dyn EventSink>> for Sinks {
    fn from_iter<T: IntoIterator<Item = Arc<dyn EventSink>>>(sinks: T) -> Self {
        Self(sinks.into_iter().collect())
    }
}

impl Sinks {
    pub(crate) fn push(&mut self, sink: Arc<dyn EventSink>) {
        self.0.push(sink);
    }

    /// Tells each of them. A sink that panics keeps nobody else from hearing.
    pub(crate) async fn emit(&self, event: &MailEvent) {
        for sink in &self.0 {
            let _ = caught(async { sink.emit(event).await }).await;
        }
    }
}
