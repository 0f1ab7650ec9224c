//! The conformance suite for mailers on the example's mailer.

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::Mailer;
use sendmail_testkit::mailer_suite::{Behaviour, Declined, Delivered, MailerHarness};
use tempfile::TempDir;

use crate::custom_mailer::DropFolder;

/// A mailer and the folder that it drops into.
struct Folder {
    directory: TempDir,
    mailer: Arc<DropFolder>,
}

#[async_trait]
impl MailerHarness for Folder {
    async fn start(behaviour: Behaviour) -> Result<Self, Declined> {
        let directory = tempfile::tempdir().unwrap();
        let folder = match behaviour {
            Behaviour::AcceptAll => directory.path().to_owned(),
            Behaviour::Unreachable => directory.path().join("missing"),
            _ => {
                return Err(Declined("a folder takes everything, at once, or is not there".into()));
            }
        };
        let mailer = Arc::new(DropFolder::new(&folder));
        Ok(Self { directory, mailer })
    }

    fn mailer(&self) -> Arc<dyn Mailer> {
        self.mailer.clone()
    }

    async fn delivered(&self) -> Vec<Delivered> {
        let files = std::fs::read_dir(self.directory.path()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let whole = |path: &std::path::PathBuf| {
            !path.file_name().unwrap().to_string_lossy().starts_with('.')
        };
        paths.filter(whole).map(|path| parse(&std::fs::read(path).unwrap())).collect()
    }
}

/// A dropped file, taken apart.
fn parse(mut bytes: &[u8]) -> Delivered {
    let mut line = |key: &str| -> Option<String> {
        let rest = bytes.strip_prefix(key.as_bytes())?;
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        bytes = &rest[end + 2..];
        Some(String::from_utf8(rest[..end].to_vec()).unwrap())
    };
    let reverse_path = line("Return-Path: ").unwrap();
    let reverse_path = reverse_path.trim_matches(['<', '>']).to_owned();
    let recipients = std::iter::from_fn(|| line("Delivered-To: ")).collect();
    Delivered { reverse_path, recipients, bytes: bytes.to_vec() }
}

sendmail_testkit::mailer_suite!(Folder);
