"""Fills or drains a queue with zope.sendmail, and prints how many seconds that took.

usage: zope_queue.py fill QUEUE COUNT LENGTH | zope_queue.py drain QUEUE PORT
"""

import logging
import sys
import time

import transaction
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.queue import QueueProcessorThread


def message(number, length):
    text = (
        "From: a@example.org\nTo: b@example.net\nSubject: number %d\n"
        "Message-ID: <%d@fill.test>\nDate: Tue, 24 Nov 2026 07:08:55 +0000\n\n"
        % (number, number)
    )
    while len(text) < length:
        text += "x" * (min(length - len(text), 72) - 1) + "\n"
    return text.encode()


def fill(queue, count, length):
    delivery = QueuedMailDelivery(queue)
    for number in range(count):
        delivery.send("a@example.org", ["b@example.net"], message(number, length))
        transaction.commit()


def drain(queue, port):
    logging.getLogger("QueueProcessorThread").addHandler(logging.StreamHandler())
    processor = QueueProcessorThread()
    processor.setMailer(SMTPMailer("127.0.0.1", port))
    processor.setQueuePath(queue)
    processor.run(forever=False)


begin = time.monotonic()
if sys.argv[1] == "fill":
    fill(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
else:
    drain(sys.argv[2], int(sys.argv[3]))
print(time.monotonic() - begin)
