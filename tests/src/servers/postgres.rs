//! PostgreSQL.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::daemon::End;
use super::scratch::Scratch;
use super::{Engine, Place, Server, free_port, output};
use crate::Result;
use crate::programs;

/// PostgreSQL's programs.
#[derive(Debug)]
pub struct PostgresEngine {
    bin: PathBuf,
}

/// Little memory, little disk, and no socket but the port. What is durable stays as it is by default.
const SETTINGS: [&str; 7] = [
    "--listen_addresses=127.0.0.1",
    "--unix_socket_directories=",
    "--shared_buffers=16MB",
    "--max_wal_size=64MB",
    "--huge_pages=off",
    // Not in /dev/shm, where it would stay behind after a kill.
    "--dynamic_shared_memory_type=mmap",
    "--logging_collector=off",
];

impl Engine for PostgresEngine {
    const NAME: &'static str = "postgres";
    const PACKAGE: &'static str = "postgresql";
    const USER: &'static str = "postgres";
    const SCHEME: &'static str = "postgres";
    const SUPERUSER: &'static str = "postgres";
    const FIRST_DATABASE: &'static str = "postgres";
    // An immediate shutdown: no checkpoint, but the shared memory is given back, which SIGKILL keeps it
    // from doing.
    const END: End = End::Quit;

    fn find() -> Option<Self> {
        let on_path =
            || Some(programs::find("postgres")?.canonicalize().ok()?.parent()?.to_owned());
        let bin = newest(Path::new("/usr/lib/postgresql")).or_else(on_path)?;
        let complete = ["postgres", "initdb", "psql"].iter().all(|name| bin.join(name).is_file());
        complete.then_some(Self { bin })
    }

    fn initialise(&self, place: &Place) -> Result<()> {
        let password = place.scratch.write("password", &place.password)?;
        let mut command = place.command(&self.bin.join("initdb"));
        command.args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        // A test kills processes, not the power; the server itself syncs what it commits.
        command.args(["--no-sync", "--wal-segsize=1"]);
        command.arg("--pwfile").arg(password).arg("--pgdata").arg(data(place));
        output(&mut command).map(drop)
    }

    fn server(&self, place: &Place) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.bin.join("postgres").into(), "-D".into()];
        words.push(data(place).into());
        words.push(format!("--port={}", place.port).into());
        words.extend(SETTINGS.map(Into::into));
        words
    }

    fn client(&self, place: &Place, database: &str, sql: &str) -> Command {
        let mut command = place.client(&self.bin.join("psql"));
        command.env("PGPASSWORD", &place.password).env("PGCONNECT_TIMEOUT", "5");
        command.args(["-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"]);
        command.args(["-h", "127.0.0.1", "-p", &place.port.to_string(), "-U", Self::SUPERUSER]);
        command.args(["-d", database, "-c", sql]);
        command
    }

    fn shared() -> &'static OnceLock<Result<Server<Self>, String>> {
        static SHARED: OnceLock<Result<Server<PostgresEngine>, String>> = OnceLock::new();
        &SHARED
    }
}

impl Server<PostgresEngine> {
    /// A standby that follows this server by streaming: a copy of what is committed, on a port of its own,
    /// with the same password. It is promoted by `pg_promote()`.
    ///
    /// # Errors
    ///
    /// The copy cannot be made, or does not start; the error has the end of its log.
    pub fn standby(&self) -> Result<Self> {
        let bin = self.engine.bin.clone();
        let account = self.place.account;
        let scratch = Scratch::new("standby", &account)?;
        let (port, password) = (free_port()?, self.place.password.clone());
        let place = Place { scratch, account, port, password };
        let mut copy = place.command(&bin.join("pg_basebackup"));
        copy.env("PGPASSWORD", &place.password);
        copy.args(["--host=127.0.0.1", "--username=postgres", "--checkpoint=fast", "--no-sync"]);
        // It writes who is to be followed, and by which password, beside the data.
        copy.args(["--wal-method=stream", "--write-recovery-conf"]);
        copy.arg(format!("--port={}", self.place.port)).arg("--pgdata").arg(data(&place));
        output(&mut copy)?;
        let settings = self.settings.clone();
        let mut standby = Self { engine: PostgresEngine { bin }, daemon: None, place, settings };
        standby.launch()?;
        Ok(standby)
    }
}

fn data(place: &Place) -> PathBuf {
    place.path().join("data")
}

/// The programs of the newest version: Debian installs several, each in a folder that is its number.
fn newest(versions: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(versions).ok()?.flatten();
    let numbers = folders.filter_map(|folder| folder.file_name().to_str()?.parse::<u32>().ok());
    let bin = |number: u32| versions.join(number.to_string()).join("bin");
    numbers.filter(|number| bin(*number).join("postgres").is_file()).max().map(bin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_the_greatest_number_that_has_a_server() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(newest(folder.path()), None);
        for version in ["9", "15", "16", "17", "common"] {
            std::fs::create_dir_all(folder.path().join(version).join("bin")).unwrap();
        }
        for version in ["9", "15", "16", "common"] {
            std::fs::write(folder.path().join(version).join("bin/postgres"), "").unwrap();
        }
        assert_eq!(newest(folder.path()), Some(folder.path().join("16/bin")));
    }
}
