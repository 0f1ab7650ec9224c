//! Postfix: installed, with configuration, queue and mailboxes of its own, in a cage so that it ends as one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sendmail_tests::programs::{find, skip};

use crate::cage::Cage;
use crate::real::{self, BOXES, Certificate, Relay, free_port};

/// One with these lines more in `main.cf`.
async fn postfix(more: &str, files: &[(&str, &str)]) -> Option<Relay> {
    let Some(program) = find("postfix") else {
        skip(std::thread::current().name().unwrap_or("a test"), "postfix is not installed");
        return None;
    };
    let cage = Cage::new(None)?;
    cage.users(&["boxes"]);
    cage.folder_for_user("spool", Some(0));
    cage.folder_for_user("data", Some(number_of("postfix")));
    for (name, content) in files {
        cage.secret(name, content);
    }
    let boxes: String =
        BOXES.iter().map(|name| format!("{name}@y.example {name}/\n")).collect::<String>();
    // Who comes later has a mailbox too.
    cage.write("etc/relay/boxes", &format!("{boxes}later@y.example later/\n"));
    cage.write("etc/relay/access", "later@y.example 450 4.2.0 later\n");
    let (port, place, user) = (free_port(), cage.path().display(), Cage::user());
    let main = format!(
        "compatibility_level = 3.6\n\
         queue_directory = {place}/spool\n\
         data_directory = {place}/data\n\
         maillog_file = {place}/log/mail\n\
         maillog_file_prefixes = {place}\n\
         daemon_directory = {}\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         myhostname = relay.example.org\n\
         mydestination =\n\
         alias_maps =\n\
         alias_database =\n\
         smtputf8_enable = yes\n\
         message_size_limit = 20000\n\
         virtual_mailbox_limit = 0\n\
         smtpd_recipient_limit = 4\n\
         smtpd_recipient_overshoot_limit = 1000\n\
         smtpd_client_connection_count_limit = 3\n\
         smtpd_client_event_limit_exceptions =\n\
         smtpd_recipient_restrictions =\n\
         \x20check_recipient_access texthash:/etc/relay/access, reject_unauth_destination\n\
         virtual_mailbox_domains = y.example\n\
         virtual_mailbox_base = {place}/mail\n\
         virtual_mailbox_maps = texthash:/etc/relay/boxes\n\
         virtual_uid_maps = static:{user}\n\
         virtual_gid_maps = static:{user}\n\
         {more}\n",
        daemons().display()
    );
    cage.write("etc/relay/main.cf", &main);
    cage.write("etc/relay/master.cf", &master(port));
    let folder = cage.path().to_owned();
    let start = move || cage.start(&[program.to_str().unwrap(), "-c", "/etc/relay", "start-fg"]);
    let mut relay = Relay::start(port, folder.clone(), start).await;
    let queues = ["maildrop", "incoming", "active", "deferred"];
    // It marks a message that it has taken as executable; what it never finished stays, and is no message.
    relay.is_message = |data| data.permissions().mode() & 0o100 != 0;
    relay.spool = queues.map(|name| folder.join("spool").join(name)).into();
    Some(relay)
}

fn master(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd\n\
         pickup unix n - n 60 1 pickup\n\
         cleanup unix n - n - 0 cleanup\n\
         qmgr unix n - n 300 1 qmgr\n\
         rewrite unix - - n - - trivial-rewrite\n\
         bounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\n\
         flush unix n - n 1000? 0 flush\n\
         proxymap unix - - n - - proxymap\n\
         virtual unix - n n - - virtual\n\
         error unix - - n - - error\n\
         retry unix - - n - - error\n\
         anvil unix - - n - 1 anvil\n\
         tlsmgr unix - - n 1000? 1 tlsmgr\n\
         postlog unix-dgram n - n - 1 postlogd\n"
    )
}

/// Where Postfix has its daemons.
fn daemons() -> PathBuf {
    let places = ["/usr/lib/postfix/sbin", "/usr/libexec/postfix", "/usr/lib/postfix"];
    let place = places.into_iter().find(|place| Path::new(place).join("smtpd").is_file());
    place.expect("Postfix is installed with its daemons").into()
}

fn number_of(user: &str) -> u32 {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with(&format!("{user}:"))).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

async fn plain() -> Option<Relay> {
    postfix("", &[]).await
}

real::cases!(plain());

// Proves: S-connect-421, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_connections() {
    let Some(relay) = plain().await else { return };
    real::too_many_connections(relay, 3).await;
}

// Proves: I14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted() {
    let certificate = Certificate::new();
    let more = "smtpd_tls_security_level = may\n\
                smtpd_tls_cert_file = /etc/relay.pem\n\
                smtpd_tls_key_file = /etc/relay.key";
    let files =
        [("etc/relay.pem", &*certificate.certificate), ("etc/relay.key", &*certificate.key)];
    let Some(relay) = postfix(more, &files).await else { return };
    real::encrypted(relay, &certificate, false).await;
}
