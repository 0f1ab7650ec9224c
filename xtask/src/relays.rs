//! Mail servers that Debian does not install beside Postfix: all of them are "the" mail server of a machine.
//!
//! Their packages are fetched and unpacked into folders of their own under `target/interop/relays`, and
//! nothing of them is installed. Tests lay such a folder over `/usr` for the server's own eyes only. The
//! libraries they need are installed as any other package.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::provision::install_debian;
use crate::shell::{self, Failure, Result, output, root, succeeds};

/// A mail server: its packages, and the program that shows that it is there.
struct Relay {
    name: &'static str,
    packages: &'static [&'static str],
    program: &'static str,
}

const RELAYS: [Relay; 2] = [
    Relay {
        name: "exim",
        packages: &["exim4-daemon-light", "exim4-base"],
        program: "usr/sbin/exim4",
    },
    Relay { name: "opensmtpd", packages: &["opensmtpd"], program: "usr/sbin/smtpd" },
];

/// It only queues for those that are measured, and would take Postfix's place if it were installed.
const NULLMAILER: Relay =
    Relay { name: "nullmailer", packages: &["nullmailer"], program: "usr/sbin/sendmail" };

/// Unpacks nullmailer if it is not there.
///
/// # Errors
///
/// It cannot be fetched or unpacked.
pub(crate) fn provide_nullmailer(may_install: bool) -> Result {
    NULLMAILER.provide(may_install)
}

/// Unpacks what is not there, if it may. Returns what is missing then, and why.
pub(crate) fn provide(may_install: bool) -> Vec<(String, String)> {
    let why = |relay: &Relay| Some((relay.name.to_owned(), relay.provide(may_install).err()?));
    RELAYS.iter().filter_map(why).map(|(name, failure)| (name, failure.to_string())).collect()
}

impl Relay {
    fn folder(&self) -> PathBuf {
        root().join("target/interop/relays").join(self.name)
    }

    fn provide(&self, may_install: bool) -> Result {
        let folder = self.folder();
        if folder.join(self.program).is_file() {
            return Ok(());
        }
        if !may_install {
            return Err(Failure::new("not unpacked, and nothing is to be installed"));
        }
        // Under its name it is there as a whole or not at all.
        let unfinished = folder.with_extension("unfinished");
        drop(std::fs::remove_dir_all(&unfinished));
        let trouble = |error| Failure::new(format!("cannot write {}: {error}", folder.display()));
        std::fs::create_dir_all(&unfinished).map_err(trouble)?;
        self.unpack(&unfinished)?;
        drop(std::fs::remove_dir_all(&folder));
        std::fs::rename(&unfinished, &folder).map_err(trouble)?;
        if folder.join(self.program).is_file() {
            Ok(())
        } else {
            Err(Failure::new(format!("its packages bring no {}", self.program)))
        }
    }

    fn unpack(&self, folder: &Path) -> Result {
        let fetch = || {
            let mut apt = Command::new("apt-get");
            apt.args(["download", "--quiet"]).args(self.packages).current_dir(folder);
            shell::run(apt.stdin(Stdio::null()))
        };
        if fetch().is_err() {
            // Its lists may be too old, or not be there at all.
            shell::run(Command::new("apt-get").args(["update", "--quiet"]))?;
            fetch()?;
        }
        for file in fetched(folder) {
            let depends = output(Command::new("dpkg-deb").arg("-f").arg(&file).arg("Depends"));
            let depends = depends.unwrap_or_default();
            let libraries = libraries(&depends);
            let missing: Vec<&str> =
                libraries.into_iter().filter(|name| !installed(name)).collect();
            if !missing.is_empty() {
                install_debian(&missing, true)?;
            }
            shell::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(folder))?;
            drop(std::fs::remove_file(&file));
        }
        Ok(())
    }
}

fn fetched(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect()
}

fn installed(package: &str) -> bool {
    succeeds(Command::new("dpkg").args(["-s", package]))
}

/// The libraries among the packages that another depends on, the first of alternatives.
fn libraries(depends: &str) -> Vec<&str> {
    let names = depends.split(',').filter_map(|one| one.split_whitespace().next());
    names.filter(|name| name.starts_with("lib")).collect()
}

#[cfg(test)]
mod tests {
    use super::libraries;

    #[test]
    fn only_libraries_are_installed() {
        let depends =
            "adduser, exim4-config (>= 4.94) | exim4-config-2, libc6 (>= 2.34), libdb5.3\n";
        assert_eq!(libraries(depends), ["libc6", "libdb5.3"]);
        assert!(libraries("").is_empty());
    }
}
