//! The commands on a PostgreSQL store.
//!
//! **Owns:** a server of its own. **Does not know:** the store; it has tests of its own.

use std::{fs, path::Path};

use assert_cmd::Command;
use leftfold_postgres::{PostgresStore, testing::Server};

use crate::{
    consumers::{consumers_are_commanded, park_two},
    leftfold, printed, said,
};

const LINES: &str = r#"{"stream":"account-1","type":"DepositMade","data":{"amount":100},"tags":["account:1"]}
{"stream":"account-2","type":"DepositMade","data":{"amount":7},"metadata":{"actor":"ann"}}
{"stream":"account-1","type":"WithdrawalMade","data":{"amount":30},"time":"2024-02-29T12:00:00.123456Z"}
"#;

#[test]
fn every_command_works_on_a_database_as_on_a_directory() {
    let server = Server::start();
    let address = server.database();
    let place = Path::new(&address);
    assert!(said(leftfold(place, &["stats"]), 1).contains("leftfold migrate"));
    assert!(printed(leftfold(place, &["migrate"])).contains("1: log"));
    assert!(printed(leftfold(place, &["migrate", "--show"])).contains("create table"));
    printed(leftfold(
        place,
        &["append", "--stream", "a-1", "--type", "Noted", "{}"],
    ));
    let taken = [
        "append", "--stream", "a-1", "--type", "Noted", "--expect", "none", "{}",
    ];
    said(leftfold(place, &taken), 3);
    assert!(printed(leftfold(place, &["read", "--stream", "a-1", "--json"])).contains("Noted"));
    assert!(printed(leftfold(place, &["streams"])).contains("a-1"));
    assert!(printed(leftfold(place, &["stats", "--json"])).contains(r#""events":1"#));
    assert!(printed(leftfold(place, &["demo"])).contains("70"));
    let bench = ["bench", "scan", "--events", "1000"];
    assert!(printed(leftfold(place, &bench)).contains("events per second"));
    printed(leftfold(
        place,
        &["metadata", "--stream", "b-1", r#"{"$maxCount":7}"#],
    ));
    assert_eq!(
        printed(leftfold(place, &["metadata", "--stream", "b-1"])),
        "{\"$maxCount\":7}\n"
    );
    printed(leftfold(
        place,
        &["delete", "--stream", "a-1", "--expect", "0"],
    ));
    assert_eq!(printed(leftfold(place, &["streams", "--prefix", "a-"])), "");
    let swept = printed(leftfold(place, &["scavenge", "--rate", "100000"]));
    assert!(swept.contains("1 events of 1 streams erased"), "{swept}");
    said(
        leftfold(
            place,
            &[
                "append", "--stream", "a-1", "--type", "T", "--expect", "exists",
            ],
        ),
        3,
    );
    let verified = printed(leftfold(place, &["verify"]));
    assert!(verified.contains("everything that was read"), "{verified}");
    assert!(
        verified.contains("erased                                  1\n"),
        "{verified}"
    );
}

#[test]
fn a_store_moves_between_a_directory_and_a_database_unchanged() {
    let server = Server::start();
    let address = server.database();
    let database = Path::new(&address);
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (
        directory.path().join("first"),
        directory.path().join("second"),
    );
    let file = directory.path().join("events.jsonl");
    let exported = |place: &Path| printed(leftfold(place, &["export"]));
    let import = |place: &Path, text: &str| {
        fs::write(&file, text).unwrap();
        let mut command = Command::cargo_bin("leftfold").unwrap();
        command
            .arg("import")
            .arg(&file)
            .arg("--data")
            .arg(place)
            .assert()
            .success();
    };
    import(&first, LINES);
    let truncate = ["metadata", "--stream", "account-1", r#"{"$tb":1}"#];
    printed(leftfold(&first, &truncate));
    printed(leftfold(&first, &["scavenge"]));
    let original = exported(&first);
    assert!(original.contains("\"erased\":true"), "{original}");
    import(database, &original);
    assert_eq!(exported(database), original);
    import(&second, &exported(database));
    assert_eq!(exported(&second), original);
}

#[test]
fn a_password_is_in_no_message() {
    let refused = said(
        leftfold(Path::new("postgres://a:hunter2@127.0.0.1:1/b"), &["stats"]),
        1,
    );
    assert!(!refused.contains("hunter2"), "{refused}");
    let refused = said(
        leftfold(
            Path::new("postgres://a:hunter2@127.0.0.1:1/b?leftfold_x=1"),
            &["stats"],
        ),
        1,
    );
    assert!(
        refused.contains("leftfold_x") && !refused.contains("hunter2"),
        "{refused}"
    );
}

#[test]
fn a_directory_has_nothing_to_migrate() {
    assert!(said(leftfold(Path::new("data"), &["migrate"]), 2).contains("postgres://"));
}

#[test]
fn consumers_of_a_database_are_commanded_as_those_of_a_directory() {
    let server = Server::start();
    let address = server.database();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = PostgresStore::open(&address).await.unwrap();
        park_two(&store).await;
    });
    consumers_are_commanded(|arguments| printed(leftfold(Path::new(&address), arguments)));
}
