"""Reads a queue with Python's own mailbox module and flags its files, again and again until its input ends,
while somebody else works on the queue. Says after each round how many it has flagged so far."""
import mailbox
import os
import select
import sys

queue = sys.argv[1]
flagged = 0


def flag(folder, key):
    """Renames a file as readers do: out of new/, or from one set of flags to another."""
    name, _, flags = key.partition(":2,")
    to = os.path.join(queue, "cur", name + (":2,FS" if flags == "S" else ":2,S"))
    os.rename(os.path.join(queue, folder, key), to)


while not select.select([sys.stdin], [], [], 0)[0]:
    box = mailbox.Maildir(queue, create=False)
    for key in box.keys()[:20]:
        try:
            assert box.get_message(key)["X-Envelope-From"] == "<shop@example.org>"
        except (KeyError, FileNotFoundError):
            pass  # Delivered, or moved by the other reader.
    for folder in ("new", "cur"):
        for key in os.listdir(os.path.join(queue, folder)):
            if not key.startswith("."):
                try:
                    flag(folder, key)
                    flagged += 1
                except FileNotFoundError:
                    pass
    print(f"flagged {flagged}", flush=True)
