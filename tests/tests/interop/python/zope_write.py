"""Fills a queue with zope.sendmail itself: its delivery, its data manager, its Maildir, real transactions.

Prints one JSON object for each message whose transaction committed.
"""
import json
import os
import sys

import transaction
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.maildir import MaildirMessageWriter

queue, count = sys.argv[1], int(sys.argv[2])
# zope's own mailer sends LF as it is, which careful servers refuse.
always_crlf = sys.argv[3:] == ["crlf"]
delivery = QueuedMailDelivery(queue)


def send(number, kind):
    sender = '"Shop, The" <shop%d@example.org>' % number
    to = [
        '"Doe, John" <first%d@example.net>' % number,
        "second%d@example.net" % number,
        'Jane (of Doe, Inc.) <third%d@example.net>' % number,
    ][: 1 + number % 3]
    eol = "\r\n" if always_crlf or number % 2 else "\n"
    subject = "%s %d" % (kind, number)
    lines = ["From: " + sender, "To: " + ", ".join(to), "Subject: " + subject]
    if number % 4 == 0:
        lines.append("Message-Id: <%s@zope.example.org>" % subject.replace(" ", "."))
    lines += ["Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", ""]
    lines += ["caf\u00e9, as bytes", ".", "..", "From here", "X-Zope-To: body@example.com", ""]
    delivery.send(sender, to, eol.join(lines))
    bare = ["first%d@example.net", "second%d@example.net", "third%d@example.net"]
    return {
        "from": "shop%d@example.org" % number,
        "to": [address % number for address in bare[: len(to)]],
        "subject": subject,
    }


written = 0
while written < count:
    transaction.begin()
    # One, two or three messages in a transaction, as many as are still wanted.
    several = min(1 + written % 3, count - written)
    committed = [send(written + number, "zope") for number in range(several)]
    transaction.commit()
    for message in committed:
        print(json.dumps(message))
    written += several
    if written % 5 == 0:
        transaction.begin()
        send(written, "aborted zope")
        send(written + 1, "aborted zope")
        transaction.abort()

# A process that is killed between vote and rename leaves its message in tmp/: it was never committed.
MaildirMessageWriter.commit = lambda self: (sys.stdout.flush(), os._exit(0))
transaction.begin()
send(count, "killed zope")
transaction.commit()
