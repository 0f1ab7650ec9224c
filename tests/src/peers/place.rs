//! Folders and ports for whoever is measured.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use tempfile::TempDir;

use crate::Result;
use crate::programs::workspace_root;

/// An empty folder on the disk on which this workspace is built: a queue in memory would measure nothing.
///
/// # Errors
///
/// The file system refuses it.
pub fn folder() -> Result<TempDir> {
    let all = workspace_root().join("target/bench");
    std::fs::create_dir_all(&all)?;
    Ok(tempfile::Builder::new().prefix("run-").tempdir_in(all)?)
}

/// Writes out everything that waits to be written to that disk: what somebody has left behind, removed files
/// among it, is not to be paid by whoever syncs next.
///
/// # Errors
///
/// The file system fails.
pub fn settle() -> Result<()> {
    let all = workspace_root().join("target/bench");
    std::fs::create_dir_all(&all)?;
    Ok(rustix::fs::syncfs(std::fs::File::open(all)?)?)
}

/// A port of loopback on which nobody listens now, for programs that cannot choose one themselves.
///
/// # Errors
///
/// None is left.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
