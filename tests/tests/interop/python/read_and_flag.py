"""Reads a queue with Python's own mailbox module, then moves and flags its files as readers do."""
import mailbox
import os
import sys

box = mailbox.Maildir(sys.argv[1], create=False)
for key, message in box.items():
    fields = [message[name] for name in ("X-Envelope-From", "X-Envelope-To", "Subject")]
    body = message.get_payload().replace("\r\n", "\n").replace("\n", "\\n")
    print("|".join([*fields, body]))
    # The module itself can only write a flagged message anew; others rename, and so does this.
    os.rename(
        os.path.join(sys.argv[1], "new", key),
        os.path.join(sys.argv[1], "cur", key + ":2,FS"),
    )
