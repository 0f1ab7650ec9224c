//! The real program against the real kernel: system calls that fail, disks that are full, file systems
//! that crash or turn read-only. What is done and what it proves is in `docs/kernel-faults.md`.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod crash;
mod injected;
mod load;
mod pending;
mod read_only;
mod room;
mod strace;
mod support;
