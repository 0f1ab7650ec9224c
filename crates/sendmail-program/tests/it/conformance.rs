//! The suite that every mailer passes.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{Envelope, Mailer};
use sendmail_testkit::mailer_suite;
use sendmail_testkit::mailer_suite::{Behaviour, Declined, Delivered, MailerHarness};

use crate::support::Script;

/// Keeps what it is given in a directory of its own in `taken/`, which appears there whole.
const TAKE: &str = r#"
mkdir -p "$dir/taken"
run=$(mktemp -d "$dir/run.XXXXXX")
cat > "$run/message"
printf '%s\n' "$@" > "$run/arguments"
mv "$run" "$dir/taken/"
"#;

struct Harness {
    script: Script,
    mailer: Arc<dyn Mailer>,
}

#[async_trait]
impl MailerHarness for Harness {
    async fn start(behaviour: Behaviour) -> Result<Self, Declined> {
        let declined = |why: &str| Err(Declined(why.to_owned()));
        let script = match behaviour {
            // A program leaves after each message by nature.
            Behaviour::AcceptAll | Behaviour::LeavesAfterEach | Behaviour::Unreachable => {
                Script::new(TAKE)
            }
            Behaviour::DeferAll => Script::new("cat > /dev/null; exit 75"),
            Behaviour::RefuseAll => Script::new("cat > /dev/null; exit 67"),
            Behaviour::LostOnceAfterHandover => {
                Script::new(&format!("mkdir \"$dir/lost\" 2>/dev/null && kill -9 $$\n{TAKE}"))
            }
            Behaviour::Except { .. } => {
                return declined("a program has one exit code for all of its recipients");
            }
            Behaviour::LostOnceBeforeHandover => {
                return declined("a program is started after the handover, and not there before");
            }
            other => return declined(&format!("no script for {other:?}")),
        };
        let mailer = Arc::new(script.mailer());
        if behaviour == Behaviour::Unreachable {
            fs::remove_file(script.program()).unwrap();
        }
        Ok(Self { script, mailer })
    }

    fn mailer(&self) -> Arc<dyn Mailer> {
        self.mailer.clone()
    }

    async fn delivered(&self) -> Vec<Delivered> {
        match fs::read_dir(self.script.dir().join("taken")) {
            Ok(runs) => runs.map(|run| delivered(run.unwrap().path())).collect(),
            Err(_) => Vec::new(),
        }
    }

    fn unsendable() -> Option<Envelope> {
        Some(Envelope::parse("-x@y.example", ["a@y.example"]).unwrap())
    }
}

/// What one run was given, with line ends as in the message: the program's are LF, and a message has
/// no LF but that of a CRLF, so that nothing can be hidden by the way back.
fn delivered(run: PathBuf) -> Delivered {
    let arguments = fs::read_to_string(run.join("arguments")).unwrap();
    let arguments: Vec<&str> = arguments.lines().collect();
    let ["-i", "-f", from, "--", to @ ..] = arguments.as_slice() else {
        panic!("not called as documented: {arguments:?}");
    };
    let local = fs::read(run.join("message")).unwrap();
    assert!(!local.contains(&b'\r'), "the program expects LF");
    let mut bytes = Vec::new();
    for byte in local {
        if byte == b'\n' {
            bytes.push(b'\r');
        }
        bytes.push(byte);
    }
    Delivered {
        reverse_path: if *from == "<>" { String::new() } else { (*from).to_owned() },
        recipients: to.iter().map(|recipient| (*recipient).to_owned()).collect(),
        bytes,
    }
}

mailer_suite!(Harness);
