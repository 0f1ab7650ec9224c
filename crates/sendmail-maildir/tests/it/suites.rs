//! Every conformance suite of a queue on the Maildir.

use crate::harness::Maildir;

sendmail_testkit::queue_store_suite!(Maildir);
sendmail_testkit::queue_admin_suite!(Maildir);
sendmail_testkit::event_log_suite!(Maildir);
sendmail_testkit::decision_suite!(Maildir);
