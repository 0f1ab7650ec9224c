//! With real database servers.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

mod attach;
mod attach_refused;
mod attached;
mod client;
mod commit;
mod event_failures;
mod events;
mod fence;
mod forgotten;
mod load;
mod managed;
mod many;
mod outlives;
mod restores;
mod rows;
mod smoke;
mod standby;
mod support;
mod trouble;
mod whole;
mod woken;
mod world;
