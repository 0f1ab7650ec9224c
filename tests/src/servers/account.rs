//! As whom a server runs: database servers refuse to be root.

use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::programs;

/// The user as whom a server runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Account {
    /// We are not root: as ourselves.
    Ourselves,
    /// We are root: as the user of its package.
    Other {
        /// The user's number.
        user: u32,
        /// The number of the user's group.
        group: u32,
    },
}

impl Account {
    /// Ourselves, or, if we are root, the user of this name.
    ///
    /// # Errors
    ///
    /// There is no such user.
    pub(super) fn that_serves(name: &str) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        Ok(Self::Other { user: id("-u", name)?, group: id("-g", name)? })
    }

    /// A command that runs as this user.
    pub(super) fn command(self, program: &Path) -> Command {
        let mut command = self.setpriv();
        command.arg("--").arg(program);
        command
    }

    /// A command that becomes this user, and has neither options of its own nor a program yet.
    pub(super) fn setpriv(self) -> Command {
        let mut command =
            Command::new(programs::find("setpriv").unwrap_or_else(|| "setpriv".into()));
        if let Self::Other { user, group } = self {
            command.args([format!("--reuid={user}"), format!("--regid={group}")]);
            command.arg("--clear-groups");
        }
        command
    }

    /// Gives a file or a folder to this user.
    ///
    /// # Errors
    ///
    /// The file system refuses it.
    pub(super) fn own(self, path: &Path) -> Result<()> {
        if let Self::Other { user, group } = self {
            std::os::unix::fs::chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }
}

fn id(flag: &str, name: &str) -> Result<u32> {
    let answer = super::output(Command::new("id").args([flag, name]))?;
    Ok(answer.trim().parse()?)
}
