//! The commands on a MongoDB store.
//!
//! **Owns:** a server of its own. **Does not know:** the store; it has tests of its own.

use std::{fs, path::Path};

use leftfold_mongodb::{MongoStore, testing::Server};

use crate::{
    consumers::{consumers_are_commanded, park_two},
    leftfold, printed, said,
};

const LINES: &str = r#"{"stream":"account-1","type":"DepositMade","data":{"amount":100},"tags":["account:1"]}
{"stream":"account-2","type":"DepositMade","data":{"amount":7},"metadata":{"actor":"ann"}}
{"stream":"account-1","type":"WithdrawalMade","data":{"amount":30},"time":"2024-02-29T12:00:00.123456Z"}
"#;

#[test]
fn every_command_works_on_mongodb_as_on_a_directory() {
    let server = Server::start();
    let address = server.database();
    let place = Path::new(&address);
    let append = ["append", "--stream", "a-1", "--type", "Noted"];
    printed(leftfold(place, &[&append[..], &["{}"]].concat()));
    let taken = [&append[..], &["--expect", "none", "{}"]].concat();
    said(leftfold(place, &taken), 3);
    assert!(printed(leftfold(place, &["read", "--stream", "a-1", "--json"])).contains("Noted"));
    assert!(printed(leftfold(place, &["streams"])).contains("a-1"));
    assert!(printed(leftfold(place, &["stats", "--json"])).contains(r#""events":1"#));
    assert!(printed(leftfold(place, &["demo"])).contains("70"));
    let bench = ["bench", "scan", "--events", "1000"];
    assert!(printed(leftfold(place, &bench)).contains("events per second"));
    printed(leftfold(
        place,
        &["delete", "--stream", "a-1", "--expect", "0"],
    ));
    assert_eq!(printed(leftfold(place, &["streams", "--prefix", "a-"])), "");
    let swept = printed(leftfold(place, &["scavenge"]));
    assert!(swept.contains("1 events of 1 streams erased"), "{swept}");
    let verified = printed(leftfold(place, &["verify", "--json"]));
    assert!(verified.contains(r#""erased":1"#), "{verified}");
}

#[test]
fn an_export_from_mongodb_equals_that_of_the_directory_it_was_imported_from() {
    let server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let lines = directory.path().join("lines.jsonl");
    fs::write(&lines, LINES).unwrap();
    let (near, far) = (directory.path().join("data"), server.database());
    let mut exports = Vec::new();
    for place in [near.as_path(), Path::new(&far)] {
        printed(leftfold(place, &["import", lines.to_str().unwrap()]));
        let export = printed(leftfold(place, &["export"]));
        // The recorded time of the first two lines is that of the import.
        exports.push(
            export
                .lines()
                .filter(|line| line.contains("2024-02-29"))
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(exports[0].len(), 1);
    assert_eq!(exports[0], exports[1]);
}

#[test]
fn consumers_on_mongodb_are_commanded_as_those_of_a_directory() {
    let server = Server::start();
    let address = server.database();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = MongoStore::open(&address).await.unwrap();
        park_two(&store).await;
    });
    consumers_are_commanded(|arguments| printed(leftfold(Path::new(&address), arguments)));
}
