//! Exim: its packages unpacked, its configuration over `/etc`, its mailboxes Maildirs.

use crate::cage::Cage;
use crate::real::{self, BOXES, Certificate, Relay, free_port};

/// One with its defaults, or with these lines more in its main part and among its authenticators.
async fn exim(main: &str, authenticators: &str, files: &[(&str, &str)]) -> Option<Relay> {
    let cage = Cage::new(Some(("exim", "usr/sbin/exim4")))?;
    cage.users(&["Debian-exim"]);
    for folder in ["spool", "log"] {
        cage.folder_for_user(folder, Some(Cage::user()));
    }
    for (name, content) in files {
        cage.write(name, content);
    }
    let boxes: String = BOXES.iter().map(|name| format!("{name}: {name}\n")).collect();
    cage.write("boxes", &boxes);
    let (port, place) = (free_port(), cage.path().display());
    let config = format!(
        "primary_hostname = relay.example\n\
         spool_directory = {place}/spool\n\
         log_file_path = {place}/log/%s\n\
         local_interfaces = 127.0.0.1\n\
         daemon_smtp_ports = {port}\n\
         exim_user = Debian-exim\n\
         exim_group = Debian-exim\n\
         host_lookup =\n\
         keep_environment =\n\
         message_size_limit = 20K\n\
         recipients_max = 4\n\
         smtp_accept_max = 3\n\
         smtputf8_advertise_hosts = *\n\
         allow_utf8_domains = true\n\
         acl_smtp_rcpt = rcpt\n\
         {main}\n\
         begin acl\n\
         rcpt:\n\
         defer local_parts = later\n\
         message = 4.2.0 later\n\
         accept domains = y.example\n\
         condition = ${{lookup{{$local_part}}lsearch{{{place}/boxes}}{{yes}}{{no}}}}\n\
         deny message = 5.1.1 nobody\n\
         begin routers\n\
         boxes:\n\
         driver = accept\n\
         transport = boxes\n\
         begin transports\n\
         boxes:\n\
         driver = appendfile\n\
         maildir_format\n\
         directory = {place}/mail/${{lookup{{$local_part}}lsearch{{{place}/boxes}}}}\n\
         user = Debian-exim\n\
         begin authenticators\n\
         {authenticators}\n"
    );
    cage.write("etc/exim4/exim4.conf", &config);
    let folder = cage.path().to_owned();
    let start = move || cage.start(&["/usr/sbin/exim4", "-bdf", "-q1h"]);
    let mut relay = Relay::start(port, folder.clone(), start).await;
    relay.spool = vec![folder.join("spool/input")];
    // It looks whether the sender is still there before it takes a message, and drops it if not.
    relay.keeps_what_it_could_not_answer = false;
    Some(relay)
}

async fn plain() -> Option<Relay> {
    exim("tls_advertise_hosts =", "", &[]).await
}

real::cases!(plain());

// Proves: S-connect-421, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_connections() {
    let Some(relay) = plain().await else { return };
    real::too_many_connections(relay, 3).await;
}

// Proves: S-connect-5xx, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_and_authenticated() {
    let certificate = Certificate::new();
    let main = "tls_certificate = /etc/relay.pem\ntls_privatekey = /etc/relay.key\n\
                tls_advertise_hosts = *\nauth_advertise_hosts = ${if eq{$tls_in_cipher}{}{}{*}}";
    let plain = "plain:\n\
                 driver = plaintext\n\
                 public_name = PLAIN\n\
                 server_prompts = :\n\
                 server_condition = ${if and{{eq{$auth2}{shop}}{eq{$auth3}{s3cret}}}}\n\
                 server_set_id = $auth2";
    let files =
        [("etc/relay.pem", &*certificate.certificate), ("etc/relay.key", &*certificate.key)];
    let Some(relay) = exim(main, plain, &files).await else { return };
    real::encrypted(relay, &certificate, true).await;
}
