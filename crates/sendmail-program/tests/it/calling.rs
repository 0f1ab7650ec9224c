//! What the program gets: arguments, standard input, environment.

use std::fs;
use std::path::PathBuf;

use async_trait::async_trait;
use sendmail_core::{Envelope, ErrorKind, Handover, MAX_RECIPIENTS, Mailer, Outcome, Result};

use crate::support::{Count, Script, envelope, message, outcome};

/// Keeps its arguments, one a line, and its standard input.
const RECORD: &str = r#"printf '%s\n' "$@" > "$dir/arguments"; cat > "$dir/input""#;

#[tokio::test]
async fn hostile_addresses_arrive_as_they_are_and_run_nothing() {
    let script = Script::new(RECORD);
    let hostile = [
        "-oQ/tmp@x.example",
        "--@x.example",
        "-t@x.example",
        "\"$(touch $0.ran)\"@x.example",
        "`id`@x.example",
        "\"; touch /tmp/x; \"@x.example",
        "\"a b\"@x.example",
        "\"|/bin/sh\"@x.example",
        "'quoted'@x.example",
        "*@x.example",
        "%s%n@x.example",
        "jörg@x.example",
    ];
    let sent = script
        .mailer()
        .send(
            &envelope("`touch$IFS$0.ran`@x.example", &hostile),
            &message("text\n"),
            &Count::default(),
        )
        .await
        .unwrap();
    assert!(sent.outcomes().iter().all(|(_, outcome)| matches!(outcome, Outcome::Accepted(_))));
    let arguments = script.read("arguments");
    let expected = ["-i", "-f", "`touch$IFS$0.ran`@x.example", "--"].into_iter().chain(hostile);
    assert!(arguments.lines().eq(expected), "{arguments}");
    let mut files: Vec<_> =
        fs::read_dir(script.dir()).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["arguments", "input", "program"]);
}

#[tokio::test]
async fn a_sender_that_looks_like_an_option_is_refused_and_nothing_runs() {
    let script = Script::new(RECORD);
    let mailer = script.mailer();
    let envelope = envelope("-oQ/tmp@x.example", &["c@d", "e@f"]);
    let error = mailer.check(&envelope).unwrap_err();
    assert!(!error.is_temporary(), "{error}");
    assert!(error.to_string().contains("-oQ/tmp@x.example"), "{error}");
    let count = Count::default();
    let report = mailer.send(&envelope, &message("text\n"), &count).await.unwrap();
    assert!(report.outcomes().iter().all(|(_, outcome)| matches!(outcome, Outcome::Refused(_))));
    assert_eq!(count.calls(), 0);
    assert!(!script.has("arguments"));
}

#[tokio::test]
async fn standard_input_is_a_file_at_its_start_with_line_feeds() {
    let script = Script::new(&format!("[ -f /proc/self/fd/0 ] || exit 65\n{RECORD}"));
    let body = ".\n..\nFrom here\n\n.\n";
    let report = script
        .mailer()
        .send(&envelope("", &["c@d"]), &message(body), &Count::default())
        .await
        .unwrap();
    assert!(matches!(report.outcomes()[0].1, Outcome::Accepted(_)), "{report:?}");
    assert_eq!(script.read("input"), format!("Message-ID: <a@b>\nDate: d\n\n{body}"));
    assert_eq!(script.read("arguments"), "-i\n-f\n<>\n--\nc@d\n");
}

#[tokio::test]
async fn the_environment_holds_what_is_documented_and_nothing_else() {
    let script = Script::new(r#"cat > /dev/null; env > "$dir/environment"; pwd -P > "$dir/where""#);
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "there is something to hide");
    assert!(matches!(outcome(&script.mailer()).await, Outcome::Accepted(_)));
    let environment = script.read("environment");
    let set_by_the_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    let allowed = ["PATH", "HOME", "USER", "LOGNAME", "TZ"];
    for line in environment.lines() {
        let (name, value) = line.split_once('=').unwrap();
        assert!(allowed.contains(&name) || set_by_the_shell.contains(&name), "{line}");
        assert!(name != "PATH" || value == sendmail_program::PATH, "{line}");
    }
    assert_eq!(script.read("where"), "/\n");
}

#[tokio::test]
async fn as_many_recipients_as_an_envelope_may_have_are_served_by_several_runs() {
    let script = Script::new(
        r#"run=$(mktemp "$dir/run.XXXXXX"); shift 4; printf '%s\n' "$@" > "$run"
           cat > "$run.message"; mkdir "$dir/first" 2>/dev/null && exit 75; exit 0"#,
    );
    let to: Vec<String> =
        (0..MAX_RECIPIENTS).map(|n| format!("recipient-{n:05}@a-domain.example")).collect();
    let envelope = Envelope::parse("a@b", &to).unwrap();
    let count = Count::default();
    let report = script.mailer().send(&envelope, &message("text\n"), &count).await.unwrap();
    assert_eq!(count.calls(), 1, "one announcement for all runs");

    let names: Vec<&str> = report.outcomes().iter().map(|(r, _)| r.as_str()).collect();
    assert_eq!(names, to);
    let deferred =
        report.outcomes().iter().filter(|(_, o)| matches!(o, Outcome::Deferred(_))).count();
    let accepted =
        report.outcomes().iter().filter(|(_, o)| matches!(o, Outcome::Accepted(_))).count();
    assert!(deferred > 0 && accepted > 0, "{deferred} deferred, {accepted} accepted");
    assert_eq!(deferred + accepted, MAX_RECIPIENTS, "each run has its own outcome");

    let mut served: Vec<String> = Vec::new();
    for file in fs::read_dir(script.dir()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = || fs::read_to_string(&path).unwrap();
        if name.ends_with(".message") {
            assert!(text().ends_with("\n\ntext\n"), "every run gets the whole message");
        } else if name.starts_with("run.") {
            served.extend(text().lines().map(str::to_owned));
        }
    }
    served.sort();
    assert_eq!(served, to, "everybody is served, and once");
}

#[tokio::test]
async fn after_a_run_that_nobody_knows_the_end_of_no_other_is_made() {
    let script = Script::new(r#"echo >> "$dir/runs"; kill -9 $$"#);
    let to: Vec<String> =
        (0..MAX_RECIPIENTS).map(|n| format!("recipient-{n:05}@a-domain.example")).collect();
    let envelope = Envelope::parse("a@b", &to).unwrap();
    let report =
        script.mailer().send(&envelope, &message("text\n"), &Count::default()).await.unwrap();
    assert_eq!(script.read("runs"), "\n");
    assert!(matches!(report.outcomes()[0].1, Outcome::Unknown(_)));
    assert!(matches!(report.outcomes()[MAX_RECIPIENTS - 1].1, Outcome::Deferred(_)));
}

#[tokio::test]
async fn a_program_that_went_away_is_an_outage_and_announced_to_nobody() {
    let script = Script::new(RECORD);
    let mailer = script.mailer();
    fs::rename(script.program(), script.dir().join("elsewhere")).unwrap();
    let count = Count::default();
    let failed = mailer.send(&envelope("a@b", &["c@d"]), &message("text\n"), &count).await;
    for error in [failed.unwrap_err(), mailer.probe().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.is_temporary());
        assert!(error.to_string().contains(script.program().to_str().unwrap()), "{error}");
    }
    assert_eq!(count.calls(), 0);
    fs::rename(script.dir().join("elsewhere"), script.program()).unwrap();
    assert!(mailer.probe().await.is_ok());
    assert!(matches!(outcome(&mailer).await, Outcome::Accepted(_)));
}

/// Takes the program away in the instant between the announcement and the start.
struct Thief(PathBuf);

#[async_trait]
impl Handover for Thief {
    async fn before_handover(&self) -> Result<()> {
        fs::remove_file(&self.0).unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn a_program_that_vanishes_after_the_announcement_defers_and_leaves_no_doubt() {
    let script = Script::new(RECORD);
    let thief = Thief(script.program());
    let envelope = envelope("a@b", &["c@d", "e@f"]);
    let report = script.mailer().send(&envelope, &message("text\n"), &thief).await.unwrap();
    for (_, outcome) in report.outcomes() {
        assert!(matches!(outcome, Outcome::Deferred(_)), "{outcome:?}");
        assert!(outcome.reply().text().contains("could not be started"), "{outcome:?}");
    }
}
