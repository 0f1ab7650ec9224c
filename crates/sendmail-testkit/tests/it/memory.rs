//! Every suite of a queue on the [`MemoryStore`](sendmail_testkit::MemoryStore), with claims that last
//! as long as their worker and with leases.

mod living {
    use crate::harness::Memory;

    sendmail_testkit::queue_store_suite!(Memory);
    sendmail_testkit::queue_admin_suite!(Memory);
    sendmail_testkit::event_log_suite!(Memory);
    sendmail_testkit::decision_suite!(Memory);
}

mod leased {
    use crate::harness::Leased;

    sendmail_testkit::queue_store_suite!(Leased);
    sendmail_testkit::queue_admin_suite!(Leased);
    sendmail_testkit::event_log_suite!(Leased);
    sendmail_testkit::decision_suite!(Leased);
}
