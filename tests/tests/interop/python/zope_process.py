"""Delivers a queue with zope.sendmail's own processor until its new/ and cur/ are empty."""
import logging
import os
import sys

from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.queue import QueueProcessorThread

logging.disable(logging.CRITICAL)
queue, port = sys.argv[1], int(sys.argv[2])


def waiting():
    for folder in ("new", "cur"):
        for name in os.listdir(os.path.join(queue, folder)):
            if not name.startswith("."):
                return True
    return False


while waiting():
    processor = QueueProcessorThread()
    processor.setQueuePath(queue)
    processor.setMailer(SMTPMailer("127.0.0.1", port, no_tls=True))
    try:
        processor.run(forever=False)
    except OSError:
        # It dies on a file that somebody else took between its look and its touch.
        pass
