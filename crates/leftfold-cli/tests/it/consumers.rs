//! `leftfold consumers` on a store whose listener has parked events.

use std::time::Duration;

use leftfold_model::{Position, Timestamp};
use leftfold_store::{
    EmbeddedStore, EventStore, LogOptions,
    consumers::{ClaimRequest, ConsumerChange, ConsumerName, ParkedEvent},
};
use serde_json::Value;

use crate::{leftfold, printed, said};

/// Lets the consumer `mailer` of a store park two events.
pub(crate) async fn park_two(store: &dyn EventStore) {
    let consumers = store.consumers();
    let name = ConsumerName::new("mailer").unwrap();
    let request = ClaimRequest::new(name, "h", Duration::from_secs(9));
    let mut claim = consumers.claim(&request).await.unwrap();
    let park = |position, attempts, reason: &str| {
        ConsumerChange::Park(ParkedEvent {
            position: Position::new(position),
            key: "account-1".into(),
            reason: reason.into(),
            attempts,
            time: Timestamp::from_micros(0),
            resolution: None,
        })
    };
    let changes = vec![park(2, 5, "refused\u{7}"), park(3, 0, "waits")];
    consumers
        .advance(&mut claim, Position::new(3), changes)
        .await
        .unwrap();
    consumers.release(&claim).await.unwrap();
}

/// Lists what `mailer` parked, skips one of them, and removes the consumer, with commands that `run` runs.
pub(crate) fn consumers_are_commanded(run: impl Fn(&[&str]) -> String) {
    let listed = run(&["consumers", "list"]);
    assert!(
        listed.contains("parked 2") && listed.ends_with("not claimed  mailer\n"),
        "{listed}"
    );
    assert_eq!(run(&["consumers", "parked", "mailer"]).lines().count(), 2);
    assert!(run(&["consumers", "skip", "mailer", "2"]).contains("will be skipped"));
    let parked = run(&["consumers", "--json", "parked", "mailer"]);
    let first: Value = serde_json::from_str(parked.lines().next().unwrap()).unwrap();
    assert_eq!(first.pointer("/request"), Some(&"skip".into()), "{parked}");
    assert!(run(&["consumers", "remove", "mailer"]).contains("mailer removed"));
    assert_eq!(run(&["consumers", "list"]), "");
}

/// A store with three events and the consumer `mailer`, which parked two of them.
fn store() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        printed(leftfold(
            data.path(),
            &["append", "--stream", "account-1", "--type", "Opened"],
        ));
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(data.path(), LogOptions::default())
            .await
            .unwrap();
        park_two(&store).await;
        store.close().await.unwrap();
    });
    data
}

#[test]
fn consumers_and_what_they_parked_are_shown() {
    let data = store();
    let run =
        |arguments: &[&str]| printed(leftfold(data.path(), &[&["consumers"], arguments].concat()));
    let listed = run(&["list"]);
    assert!(
        listed.contains("parked 2") && listed.ends_with("not claimed  mailer\n"),
        "{listed}"
    );
    assert_eq!(run(&["show", "mailer"]), listed);
    let shown: Value = serde_json::from_str(&run(&["--json", "show", "mailer"])).unwrap();
    assert_eq!(
        (&shown["position"], &shown["holder"]),
        (&3.into(), &Value::Null)
    );
    let parked = run(&["parked", "mailer"]);
    assert_eq!(parked.lines().count(), 2);
    assert!(
        parked.contains("account-1  attempts 5  refused") && !parked.contains('\u{7}'),
        "{parked}"
    );
    assert_eq!(run(&["parked", "mailer", "--key", "other"]), "");
}

#[test]
fn what_becomes_of_parked_events_is_written_down() {
    let data = store();
    let run =
        |arguments: &[&str]| printed(leftfold(data.path(), &[&["consumers"], arguments].concat()));
    assert_eq!(
        run(&["skip", "mailer", "2"]),
        "position 2 will be skipped\n"
    );
    assert_eq!(
        run(&["retry", "mailer", "3"]),
        "position 3 will be retried\n"
    );
    let parked = run(&["parked", "mailer"]);
    let lines: Vec<_> = parked.lines().collect();
    assert!(
        lines[0].ends_with("(to be skipped)") && lines[1].ends_with("(to be retried)"),
        "{parked}"
    );
    run(&["reset", "mailer", "--to", "2"]);
    assert_eq!(run(&["parked", "mailer"]).lines().count(), 1);
    assert_eq!(run(&["remove", "mailer"]), "mailer removed\n");
    assert_eq!(run(&["list"]), "");
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let data = store();
    let refused_with = |code, arguments: &[&str]| {
        let arguments = [&["consumers"], arguments].concat();
        said(leftfold(data.path(), &arguments), code)
    };
    let refused = |arguments: &[&str]| refused_with(1, arguments);
    assert!(refused(&["show", "maler"]).contains("consumer maler is not known"));
    assert!(refused(&["skip", "mailer", "1"]).contains("event 1 is not parked by consumer mailer"));
    assert!(refused(&["retry", "maler", "2"]).contains("consumer maler is not known"));
    let beyond = refused_with(2, &["reset", "mailer", "--to", "4"]);
    assert!(
        beyond.contains("position 4") && beyond.contains("at 3"),
        "{beyond}"
    );
}
