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
fn a_store_moves_between_a_directory_and_mongodb_unchanged() {
    let server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let lines = directory.path().join("lines.jsonl");
    fs::write(&lines, LINES).unwrap();
    let (near, far) = (directory.path().join("data"), server.database());
    let (back, far) = (directory.path().join("back"), Path::new(&far));
    let import = |place: &Path| leftfold(place, &["import", lines.to_str().unwrap()]);
    printed(import(&near));
    printed(leftfold(
        &near,
        &["metadata", "--stream", "account-1", r#"{"$tb":1}"#],
    ));
    printed(leftfold(&near, &["scavenge"]));
    let original = printed(leftfold(&near, &["export"]));
    for place in [far, back.as_path()] {
        fs::write(&lines, printed(leftfold(&near, &["export"]))).unwrap();
        printed(import(place));
        assert_eq!(printed(leftfold(place, &["export"])), original);
    }
    fs::write(&lines, printed(leftfold(far, &["export"]))).unwrap();
    let again = printed(import(&near));
    assert!(again.starts_with("0 events imported"), "{again}");
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
