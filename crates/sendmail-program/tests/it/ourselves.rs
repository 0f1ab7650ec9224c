//! Which programs are refused from the start, above all our own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use sendmail_core::{ErrorKind, Mailer, Outcome};
use sendmail_program::ProgramMailer;

use crate::support::{Script, outcome, write_executable};

fn check(program: &Path, kind: ErrorKind, words: &str) {
    let error = ProgramMailer::new(program).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(!error.is_temporary(), "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.to_string().contains(program.to_str().unwrap()), "{error}");
}

#[test]
fn the_running_executable_is_refused_through_links_too() {
    let us = std::env::current_exe().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (link, link_to_it) = (dir.path().join("sendmail"), dir.path().join("mailer"));
    symlink(&us, &link).unwrap();
    symlink(&link, &link_to_it).unwrap();
    for program in [&us, &link, &link_to_it] {
        check(program, ErrorKind::InvalidInput, "back into the queue from which it came");
    }
    let hard = us.with_file_name(format!("hard-link-{}", std::process::id()));
    fs::hard_link(&us, &hard).unwrap();
    let refused = ProgramMailer::new(&hard);
    fs::remove_file(&hard).unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn the_command_line_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("sendmail-queue");
    write_executable(&program, "#!/bin/sh\n");
    check(&program, ErrorKind::InvalidInput, "without end");
    let link = dir.path().join("sendmail");
    symlink(&program, &link).unwrap();
    check(&link, ErrorKind::InvalidInput, "without end");
    let error = ProgramMailer::from_url(&format!("program:{}", link.display())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_link_that_is_turned_to_us_later_is_an_outage() {
    let script = Script::new("cat > /dev/null");
    let link = script.dir().join("sendmail");
    symlink(script.program(), &link).unwrap();
    let mailer = ProgramMailer::new(&link).unwrap();
    assert!(matches!(outcome(&mailer).await, Outcome::Accepted(_)));
    fs::remove_file(&link).unwrap();
    symlink(std::env::current_exe().unwrap(), &link).unwrap();
    for error in
        [crate::support::send(&mailer).await.unwrap_err(), mailer.probe().await.unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.to_string().contains("without end"), "{error}");
    }
}

#[test]
fn what_cannot_be_a_program_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    check(Path::new("sendmail"), ErrorKind::InvalidInput, "not absolute");
    check(&dir.path().join("nothing"), ErrorKind::NotFound, "install it");
    check(dir.path(), ErrorKind::InvalidInput, "not a regular file");
    let program = dir.path().join("program");
    write_executable(&program, "#!/bin/sh\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
    check(&program, ErrorKind::PermissionDenied, "may not be executed");
    let script = dir.path().join("script");
    write_executable(&script, "#!/nowhere/interpreter -x\n");
    check(&script, ErrorKind::NotFound, "/nowhere/interpreter:");
}

#[test]
fn the_relay_is_named_by_its_url() {
    let script = Script::new("");
    let url = format!("program:{}", script.program().display());
    let mailer = ProgramMailer::from_url(&url).unwrap();
    assert_eq!(mailer.relay(), url);
    assert_eq!(mailer.program(), script.program());
    let three = format!("program://{}", script.program().display());
    assert_eq!(ProgramMailer::from_url(&three).unwrap().relay(), url);
}
