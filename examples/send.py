#!/usr/bin/env python3
"""Hand a mail to the queue from Python, or from any language that can start a program.

    SENDMAIL_QUEUE=/var/spool/shop ./send.py

`sendmail-queue send` reads a message from standard input and returns when it is safe on the disk. Its exit
code is 0 then, and only then; 75 means that the same may work later.
"""

import os
import subprocess
import sys
from email.message import EmailMessage

PROGRAM = os.environ.get("SENDMAIL_QUEUE_BIN", "sendmail-queue")


def send(message: EmailMessage, sender: str, recipients: list[str]) -> str:
    """Queue `message` durably, and return its Message-ID."""
    command = [PROGRAM, "send", "-f", sender, "--", *recipients]
    done = subprocess.run(command, input=message.as_bytes(), capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.decode().strip()}")
    return done.stdout.decode().strip()


def main() -> int:
    message = EmailMessage()
    message["From"] = "shop@example.org"
    message["To"] = "alice@example.net"
    message["Subject"] = "Your order"
    message.set_content("Thank you.\n")
    print(send(message, "shop@example.org", ["alice@example.net"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
