//! Dovecot's IMAP process on a queue, logged in already, as a user of its own.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use tokio::process::Command;

use super::{demand, finish};

/// `nobody`: Dovecot opens no mailbox as root.
const NOBODY: u32 = 65534;

/// Says these IMAP commands to Dovecot, whose INBOX is the Maildir at `mailbox`, and returns the answers.
/// Nothing means that the test has skipped itself.
pub(crate) async fn imap(mailbox: &Path, commands: &[&str]) -> Option<String> {
    let program = demand::program("imap")?;
    let folder = tempfile::tempdir().unwrap();
    let user = rustix::process::geteuid();
    let uid = if user.is_root() { NOBODY } else { user.as_raw() };
    if user.is_root() {
        give(folder.path(), uid);
        give(mailbox, uid);
        let above = mailbox.parent().unwrap();
        std::fs::set_permissions(above, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let config = folder.path().join("dovecot.conf");
    let (home, mailbox) = (folder.path().display(), mailbox.display());
    let settings = format!(
        "base_dir = {home}\nstate_dir = {home}\nlog_path = {home}/log\nssl = no\n\
         mail_location = maildir:{mailbox}\nmail_uid = {uid}\nmail_gid = {uid}\n\
         first_valid_uid = 1\nnamespace inbox {{\n  inbox = yes\n}}\n"
    );
    std::fs::write(&config, settings).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(&config).env("USER", "nobody").env("HOME", folder.path());
    let lines: Vec<String> =
        commands.iter().enumerate().map(|(tag, line)| format!("t{tag} {line}\r\n")).collect();
    let done = finish(command, lines.concat().as_bytes()).await;
    for (tag, line) in commands.iter().enumerate() {
        let ok = format!("t{tag} OK");
        assert!(done.stdout.contains(&ok), "{line}: {done:?}");
    }
    Some(done.stdout)
}

/// Gives a directory and all that is in it to a user.
fn give(path: &Path, uid: u32) {
    chown(path, Some(uid), None).unwrap();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid);
        }
    }
}
