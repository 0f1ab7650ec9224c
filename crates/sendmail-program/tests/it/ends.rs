//! How programs end, and what is made of it.

use std::fs;
use std::time::Duration;

use sendmail_core::{Mailer, Outcome, Reply};

use crate::support::{Count, Script, envelope, eventually, message, outcome, send, wait_for};

#[tokio::test]
async fn exit_codes_are_told_as_the_table_says() {
    let script =
        Script::new(r#"cat > /dev/null; echo "line one" >&2; echo "why"; exit $(cat "$dir/code")"#);
    let mailer = script.mailer();
    for (code, word, reply) in [
        (0, "Accepted", "250 2.0.0 taken by the program: line one why"),
        (1, "Deferred", "451 4.3.0 the program exited with 1: line one why"),
        (64, "Refused", "550 5.5.4 the program exited with 64 (EX_USAGE): line one why"),
        (65, "Refused", "550 5.6.0 the program exited with 65 (EX_DATAERR): line one why"),
        (67, "Refused", "550 5.1.1 the program exited with 67 (EX_NOUSER): line one why"),
        (68, "Refused", "550 5.1.2 the program exited with 68 (EX_NOHOST): line one why"),
        (69, "Deferred", "451 4.3.0 the program exited with 69 (EX_UNAVAILABLE): line one why"),
        (70, "Deferred", "451 4.3.0 the program exited with 70 (EX_SOFTWARE): line one why"),
        (71, "Deferred", "451 4.3.0 the program exited with 71 (EX_OSERR): line one why"),
        (75, "Deferred", "451 4.3.0 the program exited with 75 (EX_TEMPFAIL): line one why"),
        (76, "Deferred", "451 4.5.0 the program exited with 76 (EX_PROTOCOL): line one why"),
        (77, "Refused", "550 5.7.1 the program exited with 77 (EX_NOPERM): line one why"),
        (78, "Deferred", "451 4.3.5 the program exited with 78 (EX_CONFIG): line one why"),
        (
            137,
            "Unknown",
            "451 4.3.0 the program exited with 137: its own last command was killed by signal 9; \
             the message may have been sent: line one why",
        ),
    ] {
        fs::write(script.dir().join("code"), code.to_string()).unwrap();
        let outcome = outcome(&mailer).await;
        assert!(format!("{outcome:?}").starts_with(word), "{code}: {outcome:?}");
        assert_eq!(outcome.reply().to_string(), reply);
    }
}

#[tokio::test]
async fn all_recipients_share_the_exit_code() {
    let script = Script::new("cat > /dev/null; exit 75");
    let envelope = envelope("a@b", &["c@d", "e@f", "g@h"]);
    let report =
        script.mailer().send(&envelope, &message("text\n"), &Count::default()).await.unwrap();
    assert_eq!(report.outcomes().len(), 3);
    assert!(report.outcomes().iter().all(|(_, outcome)| matches!(outcome, Outcome::Deferred(_))));
}

#[tokio::test]
async fn killed_by_a_signal_is_unknown() {
    for signal in ["KILL", "TERM", "SEGV"] {
        let script = Script::new(&format!("cat > /dev/null; kill -{signal} $$"));
        let outcome = outcome(&script.mailer()).await;
        assert!(matches!(outcome, Outcome::Unknown(_)), "{signal}: {outcome:?}");
        assert!(outcome.reply().text().contains("killed by signal"), "{outcome:?}");
    }
}

/// A process that is gone, or only waits for its parent to look at it.
fn is_dead(pid: &str) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

#[tokio::test]
async fn a_program_that_never_ends_is_killed_with_all_that_it_started() {
    let script = Script::new(
        r#"sleep 100000 & echo $! > "$dir/helper"; echo $$ > "$dir/self"; mv "$dir/self" "$dir/pid"
           wait"#,
    );
    let mailer = script.mailer().with_time_limit(Duration::from_millis(1500));
    let outcome = outcome(&mailer).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert!(outcome.reply().text().contains("did not end in time"), "{outcome:?}");
    // A machine that is too busy to start it within the limit kills it before it can say who it is.
    if script.has("pid") {
        for name in ["pid", "helper"] {
            let pid = script.read(name).trim().to_owned();
            eventually("every process of the group is dead", || is_dead(&pid));
        }
    }
}

#[tokio::test]
async fn endless_output_is_read_and_neither_kept_nor_waited_for() {
    let script = Script::new("exec yes 'and so on'");
    let mailer = script.mailer().with_time_limit(Duration::from_millis(500));
    let outcome = outcome(&mailer).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert!(outcome.reply().text().len() <= Reply::MAX_TEXT);
}

#[tokio::test]
async fn more_output_than_a_pipe_holds_does_not_stop_the_program() {
    let script =
        Script::new("cat > /dev/null; yes noise | head -n 500000; echo the reason; exit 65");
    let outcome = outcome(&script.mailer()).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert!(outcome.reply().text().ends_with("noise the reason"), "{outcome:?}");
}

/// It keeps standard output open, as `sendmail -odb` may: only the program itself is waited for.
#[tokio::test]
async fn a_helper_that_is_left_behind_is_not_waited_for() {
    let script = Script::new(&format!(
        "cat > /dev/null\n( {}; echo late; : > \"$dir/done\" ) &\nexit 0",
        wait_for("go")
    ));
    assert!(matches!(outcome(&script.mailer()).await, Outcome::Accepted(_)));
    assert!(!script.has("done"));
    script.signal("go");
    eventually("the helper goes on, and may print", || script.has("done"));
}

#[tokio::test]
async fn a_program_that_reads_nothing_is_believed() {
    let script = Script::new("exit 0");
    let large = message(&"a line\n".repeat(200_000));
    let report =
        script.mailer().send(&envelope("a@b", &["c@d"]), &large, &Count::default()).await.unwrap();
    assert!(matches!(report.outcomes()[0].1, Outcome::Accepted(_)));
}

/// Each run logs its begin and its end; the first waits in between.
#[tokio::test]
async fn a_dropped_future_leaves_the_program_its_message_and_its_place() {
    let script = Script::new(&format!(
        "echo begin >> \"$dir/log\"\n{}\ncat >> \"$dir/input\"\necho end >> \"$dir/log\"",
        wait_for("go")
    ));
    let mailer = script.mailer().with_max_running(1);
    {
        let sending = send(&mailer);
        let begun = async {
            while !script.has("log") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            report = sending => panic!("the program waits, and yet: {report:?}"),
            () = begun => {}
        }
    }
    let next = send(&mailer);
    tokio::pin!(next);
    // A look at the next one: it cannot begin while the first has its place.
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut next).await.is_err());
    assert_eq!(script.read("log"), "begin\n");
    script.signal("go");
    let report = next.await.unwrap();
    assert!(matches!(report.outcomes()[0].1, Outcome::Accepted(_)));
    assert_eq!(script.read("log"), "begin\nend\nbegin\nend\n");
    let whole = "Message-ID: <a@b>\nDate: d\n\ntext\n";
    assert_eq!(script.read("input"), whole.repeat(2));
}

#[tokio::test]
async fn no_more_programs_run_at_once_than_allowed() {
    let script =
        Script::new(r#"mkdir "$dir/running" || exit 64; cat > /dev/null; rmdir "$dir/running""#);
    let mailer = script.mailer().with_max_running(1);
    let (a, b, c, d) =
        tokio::join!(outcome(&mailer), outcome(&mailer), outcome(&mailer), outcome(&mailer));
    for outcome in [a, b, c, d] {
        assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    }
}
