//! Other people's code may panic; here that becomes a value.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use sendmail_core::{Error, ErrorKind, Result};

/// Runs `call`; a panic in it becomes the text it was raised with.
///
/// What `call` borrowed may be in any state afterwards: the caller goes on to do with it only what is
/// harmless in every state (abort it, drop it).
pub(crate) async fn caught<T>(call: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(call).catch_unwind().await.map_err(|payload| text_of(payload.as_ref()))
}

/// Runs `call`; a panic in it becomes a permanent error met in `operation`.
pub(crate) async fn caught_as_error<T>(
    operation: &'static str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    caught(call).await.unwrap_or_else(|text| Err(panicked(operation, &text)))
}

/// The error that a panic with `text` becomes.
pub(crate) fn panicked(operation: &'static str, text: &str) -> Error {
    Error::new(ErrorKind::InvalidState, operation, format!("the code called panicked: {text}"))
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let owned = || payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(owned).unwrap_or("(no text)").to_owned()
}
