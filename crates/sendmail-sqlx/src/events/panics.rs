//! Handlers are other people's code and may panic; here that becomes an error.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use sendmail_core::{Error, ErrorKind, Result};

/// Runs `call`; a panic in it becomes an error met in `operation`.
///
/// What `call` borrowed may be in any state afterwards: the caller only rolls back and drops it.
pub(super) async fn caught<T>(
    operation: &'static str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut call = pin!(call);
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
        polled.unwrap_or_else(|payload| Poll::Ready(Err(panicked(operation, payload.as_ref()))))
    })
    .await
}

fn panicked(operation: &'static str, payload: &(dyn Any + Send)) -> Error {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = format!("the code called panicked: {}", text.unwrap_or("(no text)"));
    Error::new(ErrorKind::InvalidState, operation, text)
}
