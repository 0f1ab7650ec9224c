"""Fills or drains a queue with zope.sendmail or repoze.sendmail, and prints how many seconds that took.

usage: queue.py zope|repoze fill QUEUE COUNT LENGTH | queue.py zope|repoze drain QUEUE PORT
"""

import logging
import sys
import time


def text(number, length):
    text = (
        "From: shop@example.org\nTo: customer@example.net\nSubject: number %d\n"
        "Message-ID: <%d@fill.test>\nDate: Tue, 24 Nov 2026 07:08:55 +0000\n\n"
        % (number, number)
    )
    while len(text) < length:
        text += "x" * (min(length - len(text), 72) - 1) + "\n"
    return text.encode()


def zope_fill(queue, count, length):
    import transaction
    from zope.sendmail.delivery import QueuedMailDelivery

    delivery = QueuedMailDelivery(queue)
    for number in range(count):
        delivery.send("shop@example.org", ["customer@example.net"], text(number, length))
        transaction.commit()


def zope_drain(queue, port):
    from zope.sendmail.mailer import SMTPMailer
    from zope.sendmail.queue import QueueProcessorThread

    logging.getLogger("QueueProcessorThread").addHandler(logging.StreamHandler())
    processor = QueueProcessorThread()
    processor.setMailer(SMTPMailer("127.0.0.1", port))
    processor.setQueuePath(queue)
    processor.run(forever=False)


def repoze_fill(queue, count, length):
    import email

    import transaction
    from repoze.sendmail.delivery import QueuedMailDelivery

    delivery = QueuedMailDelivery(queue)
    for number in range(count):
        message = email.message_from_bytes(text(number, length))
        delivery.send("shop@example.org", ["customer@example.net"], message)
        transaction.commit()


def repoze_drain(queue, port):
    from repoze.sendmail.mailer import SMTPMailer
    from repoze.sendmail.queue import QueueProcessor

    logging.getLogger("QueueProcessor").addHandler(logging.StreamHandler())
    QueueProcessor(SMTPMailer("127.0.0.1", port), queue).send_messages()


function = globals()["%s_%s" % (sys.argv[1], sys.argv[2])]
begin = time.monotonic()
function(sys.argv[3], *map(int, sys.argv[4:]))
print(time.monotonic() - begin)
