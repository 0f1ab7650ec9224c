//! How many connections are in use, and how many are being opened.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// For how long those are waited for that are being opened at the same time.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    in_use: usize,
    opening: usize,
}

impl Numbers {
    fn of(&mut self, state: State) -> &mut usize {
        match state {
            State::InUse => &mut self.in_use,
            State::Opening => &mut self.opening,
        }
    }
}

/// What a connection is counted as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    InUse,
    Opening,
}

/// The numbers of connections of one mailer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load(Arc<watch::Sender<Numbers>>);

impl Load {
    /// Counts a connection until what comes back is dropped.
    pub(crate) fn count(&self, state: State) -> Counted {
        self.0.send_modify(|numbers| *numbers.of(state) += 1);
        Counted { load: self.clone(), state }
    }

    /// Whether the relay serves any connection. Those that are being opened are waited for: most often they
    /// fail or succeed together.
    pub(crate) async fn is_any_in_use(&self) -> bool {
        let mut numbers = self.0.subscribe();
        let decided = numbers.wait_for(|numbers| numbers.in_use > 0 || numbers.opening == 0);
        let decided = timeout(PATIENCE, decided).await;
        decided.is_ok_and(|numbers| numbers.is_ok_and(|numbers| numbers.in_use > 0))
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(crate) struct Counted {
    load: Load,
    state: State,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.load.0.send_modify(|numbers| *numbers.of(self.state) -= 1);
    }
}
