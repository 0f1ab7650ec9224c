//! Every example runs to its end; each checks by itself what it tells, and lends its `main` to this test. The
//! mailer of one of them keeps the whole contract. Those with a database run as processes, and are killed.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

#[path = "../../custom_mailer.rs"]
mod custom_mailer;
mod drop_folder;
#[path = "../../event_handler.rs"]
mod event_handler;
mod orders;
#[path = "../../processor_task.rs"]
mod processor_task;
mod send_py;
#[path = "../../tests_with_testkit.rs"]
mod tests_with_testkit;
#[path = "../../transactional.rs"]
mod transactional;

#[test]
fn transactional_runs() {
    transactional::main().unwrap();
}

#[test]
fn processor_task_runs() {
    processor_task::main().unwrap();
}

#[test]
fn event_handler_runs() {
    event_handler::main().unwrap();
}

#[test]
fn custom_mailer_runs() {
    custom_mailer::main().unwrap();
}

#[test]
fn tests_with_testkit_runs() {
    tests_with_testkit::main().unwrap();
}
