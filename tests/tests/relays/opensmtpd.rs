//! OpenSMTPD: its packages unpacked, with the users and the folders that it insists on in its cage.

use std::os::unix::fs::PermissionsExt as _;

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

// Proves: S-connect-5xx, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_and_authenticated() {
    let certificate = Certificate::new();
    let Some(openssl) = find("openssl") else { return };
    let hash = std::process::Command::new(openssl).args(["passwd", "-6", "s3cret"]).output();
    let hash = String::from_utf8(hash.unwrap().stdout).unwrap();
    let before = format!(
        "pki own cert \"/etc/relay.pem\"\n\
         pki own key \"/etc/relay.key\"\n\
         table accounts {{ \"shop\" = \"{}\" }}",
        hash.trim()
    );
    let files =
        [("etc/relay.pem", &*certificate.certificate), ("etc/relay.key", &*certificate.key)];
    let Some(relay) = opensmtpd(&before, "tls pki own auth-optional <accounts>", &files).await
    else {
        return;
    };
    real::encrypted(relay, &certificate, true).await;
}
