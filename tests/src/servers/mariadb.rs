//! MariaDB.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::daemon::End;
use super::{Engine, Place, Server, output};
use crate::Result;
use crate::programs;

/// MariaDB's programs.
#[derive(Debug)]
pub struct MariaDbEngine {
    mariadbd: PathBuf,
    install: PathBuf,
    client: PathBuf,
}

/// Little memory and little disk. What is durable stays as it is by default.
const SETTINGS: [&str; 8] = [
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    "--key-buffer-size=1M",
    "--aria-pagecache-buffer-size=8M",
    "--max-connections=100",
    "--character-set-server=utf8mb4",
];

impl Engine for MariaDbEngine {
    const NAME: &'static str = "mariadb";
    const PACKAGE: &'static str = "mariadb-server";
    const USER: &'static str = "mysql";
    const SCHEME: &'static str = "mysql";
    const SUPERUSER: &'static str = "root";
    const FIRST_DATABASE: &'static str = "mysql";
    const END: End = End::Kill;

    fn find() -> Option<Self> {
        let mariadbd = programs::find("mariadbd")?;
        let install = programs::find("mariadb-install-db")?;
        Some(Self { mariadbd, install, client: programs::find("mariadb")? })
    }

    fn initialise(&self, place: &Place) -> Result<()> {
        let mut command = place.command(&self.install);
        command.args([
            "--no-defaults",
            "--skip-test-db",
            "--auth-root-authentication-method=socket",
        ]);
        command.arg(folder("--datadir=", place, "data")).arg(folder("--tmpdir=", place, ""));
        output(&mut command)?;
        let user = format!("'{}'@'127.0.0.1'", Self::SUPERUSER);
        let create = format!("CREATE OR REPLACE USER {user} IDENTIFIED BY '{}'", place.password);
        let grant = format!("GRANT ALL ON *.* TO {user} WITH GRANT OPTION");
        place.scratch.write("init.sql", &format!("{create};\n{grant};\n")).map(drop)
    }

    fn server(&self, place: &Place) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.mariadbd.clone().into(), "--no-defaults".into()];
        words.extend([folder("--datadir=", place, "data"), folder("--tmpdir=", place, "")]);
        words.extend([
            folder("--pid-file=", place, "pid"),
            folder("--init-file=", place, "init.sql"),
        ]);
        // From the data directory, because the path of a socket may not be long.
        words.push("--socket=socket".into());
        words.push(format!("--port={}", place.port).into());
        words.extend(SETTINGS.map(Into::into));
        words
    }

    fn client(&self, place: &Place, database: &str, sql: &str) -> Command {
        let mut command = place.client(&self.client);
        command.env("MYSQL_PWD", &place.password);
        command.args(["--no-defaults", "--protocol=tcp", "--skip-ssl", "--connect-timeout=5"]);
        command.args(["--batch", "--skip-column-names", "--host=127.0.0.1"]);
        command.arg(format!("--port={}", place.port)).arg(format!("--user={}", Self::SUPERUSER));
        command.arg(format!("--execute={sql}")).arg(database);
        command
    }

    fn shared() -> &'static OnceLock<Result<Server<Self>, String>> {
        static SHARED: OnceLock<Result<Server<MariaDbEngine>, String>> = OnceLock::new();
        &SHARED
    }
}

/// An option whose value is a path in the folder of the server.
fn folder(option: &str, place: &Place, name: &str) -> OsString {
    let mut word = OsString::from(option);
    word.push(place.path().join(name));
    word
}
