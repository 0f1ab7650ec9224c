//! OpenSMTPD: its packages unpacked, with the users and the folders that it insists on in its cage.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use sendmail_tests::programs::find;

use crate::cage::Cage;
use crate::real::{self, BOXES, Certificate, Relay, Utf8, free_port};

/// One whose listener has these options, with these lines before it.
async fn opensmtpd(before: &str, options: &str, files: &[(&str, &str)]) -> Option<Relay> {
    let cage = Cage::new(Some(("opensmtpd", "usr/sbin/smtpd")))?;
    cage.users(&["boxes", "opensmtpd", "opensmtpq"]);
    for folder in ["run", "var/lib/opensmtpd/empty", "var/spool/smtpd"] {
        cage.folder_for_user(folder, None);
    }
    let searched = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(cage.path().join("spool"), searched).unwrap();
    for (name, content) in files {
        cage.secret(name, content);
    }
    let owner = |name: &str| format!("\"{name}@y.example\" = \"boxes\"");
    let boxes: Vec<String> = BOXES.into_iter().chain(["later"]).map(owner).collect();
    let (port, place) = (free_port(), cage.path().display());
    let config = format!(
        "smtp max-message-size \"20K\"\n\
         smtp limit max-rcpt 4\n\
         table boxes {{ {} }}\n\
         table later {{ \"later@y.example\" }}\n\
         filter later phase rcpt-to match rcpt-to <later> reject \"450 4.2.0 later\"\n\
         {before}\n\
         listen on 127.0.0.1 port {port} hostname relay.example {options} filter later\n\
         action boxes maildir \"{place}/mail/%{{rcpt.user}}\" virtual <boxes>\n\
         match from any for domain \"y.example\" action boxes\n",
        boxes.join(", ")
    );
    cage.secret("etc/smtpd.conf", &config);
    let folder = cage.path().to_owned();
    let start = move || cage.start(&["/usr/sbin/smtpd", "-d"]);
    let mut relay = Relay::start(port, folder.clone(), start).await;
    relay.spool = vec![folder.join("spool/queue"), folder.join("spool/incoming")];
    relay.utf8 = Utf8::NotOffered;
    Some(relay)
}

async fn plain() -> Option<Relay> {
    opensmtpd("", "", &[]).await
}

real::cases!(plain());

/// Version 6.8, which Debian 12 has, cannot encrypt beside OpenSSL 3, whoever asks: then nothing is said to
/// it, no password either, and nobody loses an attempt.
// Proves: I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_and_authenticated() {
    let Some(certificate) = Certificate::rsa() else { return };
    let hash = openssl(&["passwd", "-6", "s3cret"]).stdout;
    let before = format!(
        "pki own cert \"/etc/relay.pem\"\n\
         pki own key \"/etc/relay.key\"\n\
         table accounts {{ \"shop\" = \"{}\" }}",
        String::from_utf8(hash).unwrap().trim()
    );
    let files =
        [("etc/relay.pem", &*certificate.certificate), ("etc/relay.key", &*certificate.key)];
    let options = "tls pki own auth-optional <accounts>";
    let Some(relay) = opensmtpd(&before, options, &files).await else { return };
    let address = format!("127.0.0.1:{}", relay.port);
    let probe = openssl(&["s_client", "-starttls", "smtp", "-connect", &address]);
    if probe.status.success() {
        real::encrypted(relay, &certificate, true).await;
    } else {
        real::cannot_encrypt(relay, &certificate).await;
    }
}

fn openssl(words: &[&str]) -> Output {
    let mut command = Command::new(find("openssl").unwrap());
    command.args(words).stdin(Stdio::null()).output().unwrap()
}
