"""Fills a queue with repoze.sendmail itself: its delivery, its data manager, its Maildir, real transactions.

Prints one JSON object for each message whose transaction committed.
"""
import json
import sys
from email.message import Message

import transaction
from repoze.sendmail.delivery import QueuedMailDelivery

queue, count = sys.argv[1], int(sys.argv[2])
delivery = QueuedMailDelivery(queue)


def send(number, kind):
    sender = "shop%d@example.org" % number
    named = [
        '"Doe, John" <first%d@example.net>' % number,
        "second%d@example.net" % number,
        '"J\u00f6rg, Dr." <third%d@example.net>' % number,
    ][: 1 + number % 3]
    subject = "%s %d" % (kind, number)
    message = Message()
    message["From"] = '"Shop, The" <%s>' % sender
    message["To"] = ", ".join(named)
    message["Subject"] = subject
    if number % 4 == 0:
        message["Message-Id"] = "<%s@repoze.example.org>" % subject.replace(" ", ".")
    message.set_payload("caf\u00e9\n.\n..\nFrom here\nX-Actually-To: body@example.com\n", "utf-8")
    delivery.send(sender, named, message)
    bare = ["first%d@example.net", "second%d@example.net", "third%d@example.net"]
    return {
        "from": sender,
        "to": [address % number for address in bare[: len(named)]],
        "subject": subject,
    }


written = 0
while written < count:
    transaction.begin()
    several = min(1 + written % 3, count - written)
    committed = [send(written + number, "repoze") for number in range(several)]
    transaction.commit()
    for message in committed:
        print(json.dumps(message))
    written += several
    if written % 5 == 0:
        transaction.begin()
        send(written, "aborted repoze")
        transaction.abort()
