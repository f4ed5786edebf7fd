//! The commands on a server's store.
//!
//! **Owns:** a server for each test. **Does not know:** the wire.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    sync::Arc,
};

use assert_cmd::{Command, assert::Assert};
use leftfold_client::Client;
use leftfold_server::{Server, Settings};
use leftfold_store::MemoryStore;
use tokio::runtime::Runtime;

use crate::{
    consumers::{consumers_are_commanded, park_two},
    printed, said,
};

/// A server over a store in memory; it ends with its runtime.
struct Served {
    _runtime: Runtime,
    url: String,
}

impl Served {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let mut settings = Settings::default();
        settings.set("listen", "127.0.0.1:0").unwrap();
        let bound = Server::bind(Arc::new(MemoryStore::new()), settings);
        let server = runtime.block_on(bound).unwrap();
        let url = format!("leftfold://{}", server.address());
        runtime.spawn(server.run(std::future::pending()));
        Self {
            _runtime: runtime,
            url,
        }
    }

    fn run(&self, arguments: &[&str]) -> Assert {
        command(arguments).arg("--url").arg(&self.url).assert()
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("leftfold").unwrap();
    command
        .env_remove("LEFTFOLD_DATA")
        .env_remove("LEFTFOLD_URL")
        .args(arguments);
    command
}

const NOTED: [&str; 6] = ["append", "--stream", "a-1", "--type", "Noted", "{}"];

#[test]
fn every_command_works_on_a_server_as_on_a_directory() {
    let served = Served::start();
    assert!(printed(served.run(&NOTED)).contains("position 1"));
    let taken = [&NOTED[..], &["--expect", "none"]].concat();
    said(served.run(&taken), 3);
    let read = printed(served.run(&["read", "--stream", "a-1", "--json"]));
    assert!(read.contains("Noted"), "{read}");
    assert!(printed(served.run(&["streams"])).contains("a-1"));
    assert!(printed(served.run(&["stats", "--json"])).contains(r#""events":1"#));
    let metadata = ["metadata", "--stream", "a-1", r#"{"$maxCount":5}"#];
    printed(served.run(&metadata));
    assert!(printed(served.run(&["metadata", "--stream", "a-1"])).contains("$maxCount"));
    printed(served.run(&["delete", "--stream", "a-1"]));
    // The event and the metadata that the deletion took the place of.
    assert!(printed(served.run(&["scavenge"])).contains("2 events of 2 streams"));
    let demo = printed(served.run(&["demo"]));
    assert!(
        demo.contains(&served.url) && demo.contains("balance: 70"),
        "{demo}"
    );
    let again = printed(served.run(&["demo"]));
    assert!(again.contains("balance: 140"), "{again}");
}

#[test]
fn a_store_moves_from_server_to_server_unchanged() {
    let (first, second) = (Served::start(), Served::start());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("events.jsonl");
    let path = file.to_str().unwrap();
    for _ in 0..3 {
        printed(first.run(&NOTED));
    }
    printed(first.run(&["export", "--plain", path]));
    printed(second.run(&["import", path]));
    let again = printed(second.run(&["import", path]));
    assert!(
        again.contains("0 events imported, 3 were stored already"),
        "{again}"
    );
    let exported = printed(second.run(&["export", "--plain"]));
    assert_eq!(exported, std::fs::read_to_string(file).unwrap());
}

#[test]
fn lines_of_a_stream_that_a_server_no_longer_shows_whole_are_not_imported_again() {
    let served = Served::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("events.jsonl");
    let lines: String = (0..15)
        .map(|n| {
            format!(
                "{{\"stream\":\"a-{}\",\"type\":\"T\",\"data\":{n}}}\n",
                n % 3
            )
        })
        .collect();
    std::fs::write(&file, lines).unwrap();
    let path = file.to_str().unwrap();
    printed(served.run(&["import", path]));
    for hidden in [
        &["metadata", "--stream", "a-1", r#"{"$tb":2}"#][..],
        &["delete", "--stream", "a-1"],
        &["scavenge"],
    ] {
        printed(served.run(hidden));
        let refused = said(served.run(&["import", path]), 1);
        assert!(refused.contains("line 2 is refused"), "{refused}");
        assert!(
            refused.contains("stream a-1 was truncated or deleted"),
            "{refused}"
        );
    }
    let stats = printed(served.run(&["stats", "--json"]));
    // The events, and metadata twice.
    assert!(stats.contains(r#""head":17"#), "{stats}");
}

#[test]
fn a_stream_that_a_server_shows_from_its_first_event_on_but_not_whole_is_refused_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("events.jsonl");
    let path = file.to_str().unwrap();
    // Times need not rise: an age may hide the last event, or one in between.
    for years in [&[2200, 2000][..], &[2200, 2000, 2200]] {
        let served = Served::start();
        let line = |year: &i32| {
            format!("{{\"stream\":\"a-1\",\"type\":\"T\",\"time\":\"{year}-01-01T00:00:00Z\"}}\n")
        };
        let lines: String = years.iter().map(line).collect();
        std::fs::write(&file, lines).unwrap();
        printed(served.run(&["import", path]));
        printed(served.run(&["metadata", "--stream", "a-1", r#"{"$maxAge":60}"#]));
        let refused = said(served.run(&["import", path]), 1);
        assert!(refused.contains("line 1 is refused"), "{refused}");
        assert!(refused.contains("import with --data"), "{refused}");
    }
}

#[test]
fn an_exact_export_of_a_server_goes_into_a_directory_and_over_no_server() {
    let served = Served::start();
    let directory = tempfile::tempdir().unwrap();
    let (file, data) = (
        directory.path().join("store.jsonl"),
        directory.path().join("data"),
    );
    let (path, data) = (file.to_str().unwrap(), data.to_str().unwrap());
    for _ in 0..3 {
        printed(served.run(&NOTED));
    }
    printed(served.run(&["export", path]));
    let refused = said(served.run(&["import", path]), 1);
    assert!(
        refused.contains("stop the server and import with --data"),
        "{refused}"
    );
    printed(command(&["import", path, "--data", data]).assert());
    let exported = printed(command(&["export", "--data", data]).assert());
    assert_eq!(exported, std::fs::read_to_string(&file).unwrap());
    // What a server does not hand out is named.
    printed(served.run(&["metadata", "--stream", "a-1", r#"{"$tb":1}"#]));
    printed(served.run(&["scavenge"]));
    let refused = said(served.run(&["export", path]), 1);
    assert!(refused.contains("position 1 is erased"), "{refused}");
}

/// A process that is ended with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tail_shows_what_others_append_while_it_runs() {
    let served = Served::start();
    printed(served.run(&NOTED));
    let tail = std::process::Command::new(assert_cmd::cargo::cargo_bin("leftfold"))
        .args(["tail", "--after", "0", "--json", "--url", &served.url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut tail = Ended(tail);
    let mut lines = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains("Noted"));
    // It has shown what was stored; what comes now comes live.
    let later = ["append", "--stream", "b-1", "--type", "Later", "{}"];
    printed(served.run(&later));
    assert!(next().contains("Later"));
}

#[test]
fn verify_says_that_it_needs_the_files() {
    let refused = said(
        command(&["verify", "--url", "leftfold://localhost:1"]).assert(),
        2,
    );
    assert!(refused.contains("--data"), "{refused}");
}

#[test]
fn a_store_is_named_once_and_a_flag_counts_more_than_the_environment() {
    let served = Served::start();
    let both = ["stats", "--data", "d", "--url", "leftfold://a:1"];
    assert!(said(command(&both).assert(), 2).contains("--url"));
    let none = said(command(&["stats"]).assert(), 2);
    assert!(none.contains("LEFTFOLD_URL"), "{none}");
    let mut two = command(&["stats"]);
    two.env("LEFTFOLD_URL", &served.url)
        .env("LEFTFOLD_DATA", Path::new("nowhere"));
    assert!(said(two.assert(), 2).contains("both set"));
    let mut url = command(&["stats", "--json"]);
    url.env("LEFTFOLD_URL", &served.url);
    assert!(printed(url.assert()).contains(r#""head":0"#));
    let mut flag = command(&["stats", "--json", "--url", &served.url]);
    flag.env("LEFTFOLD_DATA", "nowhere");
    assert!(printed(flag.assert()).contains(r#""head":0"#));
}

#[test]
fn an_address_that_is_none_is_told_as_such() {
    let refused = said(
        command(&["stats", "--url", "http://localhost:2113"]).assert(),
        2,
    );
    assert!(refused.contains("leftfold://"), "{refused}");
    let nobody = said(
        command(&["stats", "--url", "leftfold://127.0.0.1:1"]).assert(),
        1,
    );
    assert!(nobody.contains("cannot reach"), "{nobody}");
}

#[test]
fn consumers_of_a_server_are_commanded_as_those_of_a_directory() {
    let served = Served::start();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Client::connect(&served.url).await.unwrap();
        park_two(&store).await;
    });
    consumers_are_commanded(|arguments| {
        let (name, rest) = arguments.split_first().unwrap();
        let mut command = command(&[name]);
        printed(command.arg("--url").arg(&served.url).args(rest).assert())
    });
}
