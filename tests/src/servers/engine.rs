//! What one make of server differs in from another.

use std::ffi::OsString;
use std::fmt;
use std::process::Command;
use std::sync::OnceLock;

use super::daemon::End;
use super::{Place, Server};
use crate::Result;

/// A make of database server, as far as tests are concerned.
pub trait Engine: Sized + Send + Sync + fmt::Debug + 'static {
    /// Its name.
    const NAME: &'static str;
    /// The Debian package that brings it.
    const PACKAGE: &'static str;
    /// The user whom the package makes for it, as whom it runs if we are root, which it refuses to be.
    const USER: &'static str;
    /// How the URL of a database begins.
    const SCHEME: &'static str;
    /// Its superuser.
    const SUPERUSER: &'static str;
    /// The database that is there from the beginning.
    const FIRST_DATABASE: &'static str;
    /// The signal by which it ends at once.
    const END: End;

    /// Where its programs are; nothing if it is not installed.
    fn find() -> Option<Self>;

    /// Makes an empty data directory, and a superuser who has the place's password.
    ///
    /// # Errors
    ///
    /// Its program for this fails.
    fn initialise(&self, place: &Place) -> Result<()>;

    /// The program and the arguments that start it.
    fn server(&self, place: &Place) -> Vec<OsString>;

    /// The command that runs statements in a database, and prints the rows.
    fn client(&self, place: &Place, database: &str, sql: &str) -> Command;

    /// Where the server stands that a process shares.
    fn shared() -> &'static OnceLock<Result<Server<Self>, String>>;
}
