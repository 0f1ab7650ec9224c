//! aiosmtpd, with a handler that does what the cases ask for.

use std::path::PathBuf;
use std::process::Command;

use sendmail_tests::programs::{python, skip};

use crate::cage::Process;
use crate::real::{self, BOXES, Certificate, Relay, free_port};

/// Takes a port and a folder: with `relay.pem` in it there is STARTTLS, and AUTH behind it.
const SERVER: &str = r#"
import asyncio, os, ssl, sys, uuid
from aiosmtpd.smtp import SMTP, AuthResult

port, folder, boxes = int(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")

class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        if name == "later":
            return "450 4.2.0 later"
        if name not in boxes:
            return "550 5.1.1 nobody"
        if len(envelope.rcpt_tos) >= 4:
            return "452 4.5.3 too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        for address in envelope.rcpt_tos:
            new = os.path.join(folder, "mail", address.split("@")[0], "new")
            os.makedirs(new, exist_ok=True)
            with open(os.path.join(new, uuid.uuid4().hex), "wb") as file:
                file.write(envelope.original_content)
        return "250 2.0.0 taken"

def authenticate(server, session, envelope, mechanism, data):
    good = (data.login, data.password) == (b"shop", b"s3cret")
    return AuthResult(success=good, handled=good)

def server():
    more = {}
    certificate = os.path.join(folder, "relay.pem")
    if os.path.exists(certificate):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, os.path.join(folder, "relay.key"))
        more = dict(tls_context=context, authenticator=authenticate)
    return SMTP(Handler(), data_size_limit=20000, enable_SMTPUTF8=True, hostname="relay", **more)

async def main():
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port)
    await listener.serve_forever()

asyncio.run(main())
"#;

async fn aiosmtpd(files: &[(&str, &str)]) -> Option<Relay> {
    let knows = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", "import aiosmtpd"]).status().is_ok_and(|status| status.success())
    };
    let Some(python) = python().filter(knows) else {
        let test = std::thread::current();
        skip(test.name().unwrap_or("a test"), "there is no Python with aiosmtpd");
        return None;
    };
    let temporary = tempfile::tempdir().unwrap();
    let (port, folder) = (free_port(), temporary.path().to_owned());
    std::fs::create_dir(folder.join("log")).unwrap();
    for (name, content) in files {
        std::fs::write(folder.join(name), content).unwrap();
    }
    let start = move || {
        let mut command = Command::new(&python);
        command.args(["-c", SERVER, &port.to_string()]).arg(temporary.path()).arg(BOXES.join(","));
        Process::start(command, &temporary.path().join("log/output"))
    };
    Some(Relay::start(port, folder, start).await)
}

real::cases!(aiosmtpd(&[]));

// Proves: S-connect-5xx, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_and_authenticated() {
    let certificate = Certificate::new();
    let files = [("relay.pem", &*certificate.certificate), ("relay.key", &*certificate.key)];
    let Some(relay) = aiosmtpd(&files).await else { return };
    real::encrypted(relay, &certificate, true).await;
}
