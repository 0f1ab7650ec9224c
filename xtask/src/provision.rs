//! Outside programs that tests compare us with: found, or installed where we may.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::relays;
use crate::shell::{self, Failure, Result, find, output, root, succeeds};

/// What tests can count on.
#[derive(Default)]
pub(crate) struct Provisions {
    /// The Python that has zope.sendmail, repoze.sendmail and aiosmtpd.
    pub(crate) python: Option<PathBuf>,
    /// What is not there, and why.
    pub(crate) missing: Vec<(String, String)>,
}

/// A Debian package, and how to see that what we want of it is there.
struct Package {
    name: &'static str,
    there: fn() -> bool,
}

const PACKAGES: [Package; 11] = [
    Package { name: "postfix", there: || find("postfix").is_some() && find("smtp-sink").is_some() },
    Package { name: "mutt", there: || find("mutt").is_some() },
    Package { name: "dovecot-core", there: || find("doveadm").is_some() },
    Package { name: "dovecot-imapd", there: || Path::new("/usr/lib/dovecot/imap").is_file() },
    Package { name: "faketime", there: || find("faketime").is_some() },
    Package { name: "strace", there: || find("strace").is_some() },
    Package { name: "xfsprogs", there: || find("mkfs.xfs").is_some() && find("xfs_io").is_some() },
    Package { name: "btrfs-progs", there: || find("mkfs.btrfs").is_some() },
    Package { name: "postgresql", there: has_postgres },
    Package {
        name: "mariadb-server",
        there: || find("mariadbd").is_some() && find("mariadb-install-db").is_some(),
    },
    Package {
        name: "python3-venv",
        there: || succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])),
    },
];

const PYTHON_PACKAGES: [(&str, &str); 3] =
    [("zope.sendmail", "7.3"), ("repoze.sendmail", "4.5"), ("aiosmtpd", "1.4.6")];

/// Looks for everything, and installs what is missing if `may_install` and we can.
pub(crate) fn provide(may_install: bool) -> Provisions {
    let mut provisions = Provisions::default();
    let absent =
        || PACKAGES.iter().filter(|package| !(package.there)()).map(|package| package.name);
    let wanted: Vec<&str> = absent().collect();
    let why = if wanted.is_empty() {
        String::new()
    } else {
        match install_debian(&wanted, may_install) {
            Ok(()) => "its package is installed and does not bring it".to_owned(),
            Err(failure) => failure.to_string(),
        }
    };
    provisions.missing.extend(absent().map(|name| (name.to_owned(), why.clone())));
    match python(may_install) {
        Ok(python) => provisions.python = Some(python),
        Err(failure) => provisions
            .missing
            .push(("zope.sendmail, repoze.sendmail, aiosmtpd".to_owned(), failure.to_string())),
    }
    provisions.missing.extend(relays::provide(may_install));
    provisions
}

/// Debian keeps each version of PostgreSQL in a folder of its own, off `PATH`.
fn has_postgres() -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin"));
    let mut folders =
        debian.chain(find("postgres").and_then(|file| Some(file.parent()?.to_owned())));
    folders.any(|bin| ["postgres", "initdb", "psql"].iter().all(|name| bin.join(name).is_file()))
}

/// Installs one of the Debian packages, if it is not there.
///
/// # Errors
///
/// It cannot be installed, or does not bring what it should.
pub(crate) fn provide_package(name: &'static str) -> Result {
    let is_absent = || PACKAGES.iter().any(|package| package.name == name && !(package.there)());
    if is_absent() {
        install_debian(&[name], true)?;
    }
    if is_absent() {
        return Err(Failure::new(format!("{name} is installed and does not bring what it should")));
    }
    Ok(())
}

/// Installs Debian packages.
///
/// # Errors
///
/// Not wanted, not possible here, or refused.
pub(crate) fn install_debian(packages: &[&str], may_install: bool) -> Result {
    if !may_install {
        return Err(Failure::new("not installed, and not to be installed"));
    }
    if find("apt-get").is_none() {
        return Err(Failure::new("not installed, and there is no apt-get to install it with"));
    }
    if output(Command::new("id").arg("-u")).is_none_or(|id| id.trim() != "0") {
        let message = "not installed, and only root can; install it with `apt-get install";
        return Err(Failure::new(format!("{message} {}`", packages.join(" "))));
    }
    let _idle = KeepServicesIdle::new();
    if packages.contains(&"postfix") {
        preseed("postfix postfix/main_mailer_type select No configuration\n");
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command
    };
    // Old lists may do; the installation tells.
    if let Err(failure) = shell::run(apt().args(["update", "--quiet"])) {
        println!("{failure}");
    }
    let flags = ["install", "--quiet", "--yes", "--no-install-recommends"];
    shell::run(apt().args(flags).args(packages))
}

/// Answers a question of a package before it is asked. If that fails, its default counts.
fn preseed(answer: &str) {
    let child = Command::new("debconf-set-selections").stdin(Stdio::piped()).spawn();
    if let Ok(mut child) = child {
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(answer.as_bytes());
        }
        let _ = child.wait();
    }
}

/// Keeps packages from starting their services while they are installed, by Debian's own means: tests
/// start what they need themselves, and stop it.
struct KeepServicesIdle {
    ours: bool,
}

impl KeepServicesIdle {
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    fn new() -> Self {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o755).open(Self::POLICY);
        let written = file.and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"));
        Self { ours: written.is_ok() }
    }
}

impl Drop for KeepServicesIdle {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_file(Self::POLICY);
        }
    }
}

/// The Python of the virtual environment, which is made if it is not there.
///
/// # Errors
///
/// It cannot be made, or its packages cannot be had.
pub(crate) fn python(may_install: bool) -> Result<PathBuf> {
    let folder = root().join("target/interop/venv");
    let python = folder.join("bin/python");
    if has_packages(&python) {
        return Ok(python);
    }
    if !may_install {
        return Err(Failure::new("not installed, and not to be installed"));
    }
    shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let wanted = PYTHON_PACKAGES.map(|(name, version)| format!("{name}=={version}"));
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    shell::run(Command::new(&python).args(pip).args(wanted))?;
    if has_packages(&python) {
        Ok(python)
    } else {
        Err(Failure::new("pip installed something else than was asked for"))
    }
}

fn has_packages(python: &Path) -> bool {
    let code = "import sys, importlib.metadata as m; [print(m.version(n)) for n in sys.argv[1:]]";
    let names = PYTHON_PACKAGES.map(|(name, _)| name);
    let versions = output(Command::new(python).args(["-c", code]).args(names));
    let wanted = PYTHON_PACKAGES.map(|(_, version)| version);
    versions.is_some_and(|text| text.lines().eq(wanted))
}
