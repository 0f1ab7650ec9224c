//! The servers themselves: what other tests take for granted.

use sendmail_tests::servers::{Engine, MariaDb, Postgres, Server};

#[test]
fn postgres_keeps_what_it_committed_when_it_is_killed() {
    if let Some(server) = Postgres::own("postgres_keeps_what_it_committed_when_it_is_killed", &[]) {
        keeps_what_it_committed(server);
    }
}

#[test]
fn mariadb_keeps_what_it_committed_when_it_is_killed() {
    if let Some(server) = MariaDb::own("mariadb_keeps_what_it_committed_when_it_is_killed", &[]) {
        keeps_what_it_committed(server);
    }
}

fn keeps_what_it_committed<E: Engine>(mut server: Server<E>) {
    let url = server.create_database("kept").unwrap();
    assert!(url.ends_with(&format!("@127.0.0.1:{}/kept", server.port())), "{url}");
    server.query("kept", "CREATE TABLE numbers (number int)").unwrap();
    server.query("kept", "INSERT INTO numbers VALUES (1), (2)").unwrap();
    server.query("kept", "BEGIN; INSERT INTO numbers VALUES (3); ROLLBACK").unwrap();
    for _ in 0..2 {
        let killed = server.pid().unwrap();
        server.kill().unwrap();
        assert_eq!(server.pid(), None);
        server.query("kept", "SELECT 1").unwrap_err();
        server.restart().unwrap();
        assert_ne!(server.pid(), Some(killed));
        let kept = server.query("kept", "SELECT number FROM numbers ORDER BY number").unwrap();
        assert_eq!(kept, "1\n2\n");
    }
    assert_eq!(server.url("kept"), url);
}

#[test]
fn postgres_is_durable_unless_it_is_told_otherwise() {
    let test = "postgres_is_durable_unless_it_is_told_otherwise";
    let Some(shared) = Postgres::shared(test) else { return };
    let setting =
        |server: &Postgres, name| server.query("postgres", &format!("SHOW {name}")).unwrap();
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(setting(shared, name), "on\n", "{name}");
    }
    let relaxed = Postgres::start_with(&[("synchronous_commit", "off")]).unwrap();
    assert_eq!(setting(&relaxed, "synchronous_commit"), "off\n");
}

#[test]
fn mariadb_is_durable_unless_it_is_told_otherwise() {
    let test = "mariadb_is_durable_unless_it_is_told_otherwise";
    let Some(shared) = MariaDb::shared(test) else { return };
    let sql = "SELECT @@innodb_flush_log_at_trx_commit, @@innodb_doublewrite";
    assert_eq!(shared.query("mysql", sql).unwrap(), "1\t1\n");
    let relaxed = MariaDb::start_with(&[("innodb-flush-log-at-trx-commit", "2")]).unwrap();
    assert_eq!(relaxed.query("mysql", sql).unwrap(), "2\t1\n");
}
