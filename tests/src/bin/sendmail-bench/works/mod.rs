//! Works that several rows share: how much there is to do, and whoever does it.

pub(crate) mod drain;
pub(crate) mod enqueue;
pub(crate) mod far;
