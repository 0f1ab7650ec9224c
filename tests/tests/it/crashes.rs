//! A crash test that is small enough for every run of the tests; `cargo xtask crash-test` is the
//! large one.

use sendmail_tests::crash;

// Proves: I1, I2, I3, I8, F-dot-kill, F-record-kill
#[tokio::test]
async fn what_was_committed_arrives_whoever_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let options = crash::Options {
        kills: 20,
        mails: 300,
        database: None,
        seed: fastrand::u64(..),
        program: env!("CARGO_BIN_EXE_crash-test").into(),
        folder: folder.path().to_owned(),
    };
    let report = crash::run(&options, |_| {}).await.unwrap();
    let (account, trouble) = (&report.account, &report.trouble);
    assert!(report.is_clean(), "seed {}: {trouble:?}\n{account}", options.seed);
    assert!(account.committed.0 > 0 && account.rolled_back.0 > 0, "nothing was tried:\n{account}");
}
