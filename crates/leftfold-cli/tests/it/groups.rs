//! `leftfold groups` on a store: groups are created, changed, and what they parked is settled.

use std::time::Duration;

use leftfold_model::{Position, Timestamp};
use leftfold_store::{
    EmbeddedStore, EventStore, LogOptions,
    consumers::{ClaimRequest, ConsumerChange, ConsumerName, ParkedEvent},
};
use serde_json::Value;

use crate::{leftfold, printed, said};

fn run(data: &tempfile::TempDir, arguments: &[&str]) -> String {
    printed(leftfold(data.path(), &[&["groups"], arguments].concat()))
}

/// A store with three events and the group `mailer` of their stream.
fn store() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        printed(leftfold(
            data.path(),
            &["append", "--stream", "account-1", "--type", "Opened"],
        ));
    }
    let create = ["create", "account-1", "mailer", "--from", "start"];
    assert_eq!(run(&data, &create), "account-1::mailer created\n");
    data
}

#[test]
fn a_group_is_created_in_a_directory_that_holds_no_store_yet() {
    let data = tempfile::tempdir().unwrap();
    let create = ["create", "account-1", "mailer", "--from", "start"];
    assert_eq!(run(&data, &create), "account-1::mailer created\n");
    let listed = run(&data, &["list"]);
    assert!(listed.contains("mailer"), "{listed}");
}

/// Parks two events as the owner of the group.
fn park(data: &tempfile::TempDir) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(data.path(), LogOptions::default())
            .await
            .unwrap();
        let consumers = store.consumers();
        let name = ConsumerName::new("$persistentsubscription-account-1::mailer#0").unwrap();
        let request = ClaimRequest::new(name, "h", Duration::from_secs(9));
        let mut claim = consumers.claim(&request).await.unwrap();
        let park = |position, reason: &str| {
            ConsumerChange::Park(ParkedEvent {
                position: Position::new(position),
                key: "account-1".into(),
                reason: reason.into(),
                attempts: 4,
                time: Timestamp::from_micros(0),
                resolution: None,
            })
        };
        let changes = vec![park(1, "refused\u{7}"), park(2, "again")];
        let to = Position::new(2);
        consumers.advance(&mut claim, to, changes).await.unwrap();
        consumers.release(&claim).await.unwrap();
        store.close().await.unwrap();
    });
}

#[test]
fn groups_are_listed_shown_changed_and_deleted() {
    let data = store();
    let listed = run(&data, &["list"]);
    assert!(
        listed.contains("lag 3  parked 0  no consumers  account-1::mailer"),
        "{listed}"
    );
    let update = [
        "update",
        "account-1",
        "mailer",
        "--max-retries",
        "3",
        "--strategy",
        "Pinned",
    ];
    run(&data, &update);
    let shown: Value =
        serde_json::from_str(&run(&data, &["--json", "show", "account-1", "mailer"])).unwrap();
    assert_eq!(shown["settings"]["max_retry_count"], 3);
    assert_eq!(shown["settings"]["consumer_strategy"], "Pinned");
    assert_eq!(shown["settings"]["start"], "start");
    let all = [
        "create",
        "$all",
        "audit",
        "--from",
        "2",
        "--stream-prefix",
        "account-",
    ];
    assert_eq!(run(&data, &all), "$all::audit created\n");
    assert_eq!(run(&data, &["list"]).lines().count(), 2);
    assert_eq!(
        run(&data, &["delete", "$all", "audit"]),
        "$all::audit deleted\n"
    );
    assert_eq!(run(&data, &["list"]).lines().count(), 1);
}

#[test]
fn parked_events_are_shown_with_their_reasons_replayed_and_truncated() {
    let data = store();
    park(&data);
    let parked = run(&data, &["parked", "account-1", "mailer"]);
    assert_eq!(parked.lines().count(), 2);
    assert!(parked.contains("account-1  deliveries 4  refused") && !parked.contains('\u{7}'));
    let replay = ["replay", "account-1", "mailer", "--count", "1"];
    assert_eq!(run(&data, &replay), "1 parked events will be replayed\n");
    let truncated = run(&data, &["truncate", "account-1", "mailer"]);
    assert_eq!(truncated, "2 parked events truncated\n");
    assert_eq!(run(&data, &["parked", "account-1", "mailer"]), "");
    let listed = run(&data, &["list"]);
    assert!(listed.contains("lag 1  parked 0"), "{listed}");
}

#[test]
fn what_is_not_there_or_not_valid_is_refused_by_name() {
    let data = store();
    let refused = |arguments: &[&str], code| {
        said(
            leftfold(data.path(), &[&["groups"], arguments].concat()),
            code,
        )
    };
    let missing = refused(&["show", "account-1", "other"], 1);
    assert!(
        missing.contains("group account-1::other is not known"),
        "{missing}"
    );
    let twice = refused(&["create", "account-1", "mailer"], 1);
    assert!(twice.contains("group account-1::mailer exists"), "{twice}");
    let strategy = refused(&["create", "a", "g", "--strategy", "Fastest"], 2);
    assert!(strategy.contains("one of RoundRobin"), "{strategy}");
    let place = refused(&["create", "a", "g", "--from", "noon"], 1);
    assert!(place.contains("\"noon\""), "{place}");
    let size = refused(&["create", "a", "g", "--buffer-size", "10"], 1);
    assert!(size.contains("read batch size"), "{size}");
}
