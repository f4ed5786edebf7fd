//! Snapshots: loads that begin with one equal loads that do not, whatever happened to it.

use std::sync::atomic::{AtomicU64, Ordering};

use leftfold::{
    Aggregate, Event, Repository, Snapshot, Store, Upcasters,
    model::{EventId, StreamName},
    stores::SavedSnapshot,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::account::BankAccount;

/// Waits until a load replays no more than so many events.
async fn settled(accounts: &Repository<BankAccount>, id: &str, replayed: u64) {
    for _ in 0..10_000 {
        if accounts.load(id).await.unwrap().events_replayed() <= replayed {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!(
        "no snapshot in ten seconds: {}",
        accounts.load(id).await.unwrap().events_replayed()
    );
}

#[tokio::test]
async fn snapshots_are_taken_in_the_background_and_survive_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let accounts = store.repository::<BankAccount>().with_snapshots();
    for _ in 0..12 {
        accounts
            .execute("1", |account| account.deposit(1))
            .await
            .unwrap();
    }
    settled(&accounts, "1", 11).await;
    assert!(accounts.snapshot("1").await.unwrap(), "on demand");
    settled(&accounts, "1", 0).await;
    store.close().await.unwrap();
    drop((store, accounts));

    let store = Store::open(directory.path()).await.unwrap();
    let accounts = store.repository::<BankAccount>().with_snapshots();
    let loaded = accounts.load("1").await.unwrap();
    assert_eq!(
        (
            loaded.state().balance,
            loaded.event_count(),
            loaded.events_replayed()
        ),
        (12, 12, 0)
    );
    let plain = store.repository::<BankAccount>().load("1").await.unwrap();
    assert_eq!((plain.state().balance, plain.events_replayed()), (12, 12));
    assert!(
        !accounts.snapshot("none").await.unwrap(),
        "there is nothing to keep"
    );
}

#[tokio::test]
async fn a_snapshot_of_a_log_that_was_put_back_to_an_earlier_state_is_not_believed() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>().with_snapshots();
    for _ in 0..3 {
        accounts
            .execute("1", |account| account.deposit(1))
            .await
            .unwrap();
    }
    assert!(accounts.snapshot("1").await.unwrap());
    let stream = StreamName::new("account-1").unwrap();
    let saved = store
        .event_store()
        .snapshots()
        .load(&stream)
        .await
        .unwrap()
        .unwrap();

    let earlier = Store::memory();
    let accounts = earlier.repository::<BankAccount>().with_snapshots();
    let put = async |saved: SavedSnapshot| {
        let kept = earlier.event_store().snapshots();
        kept.remove(&stream).await.unwrap();
        kept.save(&stream, saved).await.unwrap();
        accounts.load("1").await.unwrap()
    };
    assert_eq!(
        put(saved.clone()).await.event_count(),
        0,
        "the log is empty"
    );
    for _ in 0..3 {
        accounts
            .execute("1", |account| account.deposit(7))
            .await
            .unwrap();
    }
    let loaded = put(saved.clone()).await;
    assert_eq!(loaded.state().balance, 21, "another event stands there");
    let other_id = SavedSnapshot {
        last_event: EventId::fresh(),
        ..saved
    };
    assert_eq!(put(other_id).await.state().balance, 21);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_decoded_is_replaced_by_a_replay() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>().with_snapshots();
    for _ in 0..3 {
        accounts
            .execute("1", |account| account.deposit(5))
            .await
            .unwrap();
    }
    accounts.snapshot("1").await.unwrap();
    let stream = StreamName::new("account-1").unwrap();
    let kept = store.event_store().snapshots();
    let saved = kept.load(&stream).await.unwrap().unwrap();
    for state in [&b""[..], b"{", b"[]", b"\xff", br#"{"balance":-1}"#] {
        kept.remove(&stream).await.unwrap();
        let state = state.to_vec().into();
        kept.save(
            &stream,
            SavedSnapshot {
                state,
                ..saved.clone()
            },
        )
        .await
        .unwrap();
        let loaded = accounts.load("1").await.unwrap();
        assert_eq!((loaded.state().balance, loaded.events_replayed()), (15, 3));
    }
}

/// One program's idea of a counter; the others differ from it in one thing each.
macro_rules! program {
    ($name:ident, $version:literal, $event_version:literal, { $($field:ident: $kind:ty),* }, $step:expr, $upcast:expr) => {
        mod $name {
            use super::*;

            #[derive(Event, Serialize, Deserialize, Clone, Debug)]
            #[event(upcast = upcasts)]
            pub(super) enum CountEvent {
                #[event("Counted", version = $event_version)]
                Counted { by: u64 },
            }
            fn upcasts() -> Upcasters {
                $upcast
            }

            #[derive(Default, Debug, PartialEq, Serialize, Deserialize, Snapshot)]
            #[snapshot(version = $version, every = 3)]
            pub(super) struct Counter {
                sum: u64,
                $(#[serde(default)] $field: $kind,)*
            }
            impl Aggregate for Counter {
                const CATEGORY: &'static str = "counter";
                type Event = CountEvent;

                fn apply(&mut self, event: &CountEvent) {
                    let CountEvent::Counted { by } = event;
                    self.sum += $step(*by);
                    $(self.$field += <$kind>::from(1_u8);)*
                }
            }
            impl Program for Counter {
                fn counted(by: u64) -> CountEvent {
                    CountEvent::Counted { by }
                }
            }
        }
    };
}

trait Program: Aggregate + Snapshot + DeserializeOwned + PartialEq + std::fmt::Debug {
    fn counted(by: u64) -> Self::Event;
}

program!(first, 1, 1, {}, |by| by, Upcasters::new());
program!(field_added, 1, 1, { events: u64 }, |by| by, Upcasters::new());
program!(field_of_another_type, 1, 1, { events: u128 }, |by| by, Upcasters::new());
program!(apply_changed, 2, 1, {}, |by| by * 2, Upcasters::new());
program!(
    event_changed,
    2,
    2,
    {},
    |by| by * 2,
    Upcasters::new().change("Counted", 1, |data| {
        let by = data["by"].as_u64().unwrap_or(0);
        data["by"] = (by + 1).into();
    })
);

#[derive(Debug, Clone)]
enum Step {
    Execute(u64),
    Snapshot,
    /// A crash that takes the snapshot with it.
    LoseSnapshot,
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..50_u64).prop_map(Step::Execute),
        2 => Just(Step::Snapshot),
        1 => Just(Step::LoseSnapshot),
        2 => Just(Step::Check),
    ]
}

/// Runs one program for some steps.
async fn run<A: Program>(store: &Store, steps: &[Step]) {
    let plain = store.repository::<A>();
    let counters = plain.with_snapshots();
    for step in steps {
        match step {
            Step::Execute(by) => {
                let counted = |_: &A| Ok::<_, String>(A::counted(*by));
                counters.execute("1", counted).await.unwrap();
            }
            Step::Snapshot => {
                counters.snapshot("1").await.unwrap();
            }
            Step::LoseSnapshot => {
                let stream = counters.stream("1").unwrap();
                store
                    .event_store()
                    .snapshots()
                    .remove(&stream)
                    .await
                    .unwrap();
            }
            Step::Check => {
                let (with, without) = (
                    counters.load("1").await.unwrap(),
                    plain.load("1").await.unwrap(),
                );
                assert_eq!(with.state(), without.state());
                assert_eq!(
                    (with.revision(), with.position()),
                    (without.revision(), without.position())
                );
            }
        }
        tokio::task::yield_now().await;
    }
}

static HITS: AtomicU64 = AtomicU64::new(0);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_load_with_snapshots_equals_one_without_whatever_program_took_them(
        programs in prop::collection::vec((0..5_usize, prop::collection::vec(step(), 1..12)), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::memory();
            // Programs run in an order in which each can read what those before it wrote.
            let mut programs = programs;
            programs.sort_by_key(|(program, _)| *program == 4);
            for (program, steps) in &programs {
                let mut steps = steps.clone();
                steps.push(Step::Check);
                match program {
                    0 => run::<first::Counter>(&store, &steps).await,
                    1 => run::<field_added::Counter>(&store, &steps).await,
                    2 => run::<field_of_another_type::Counter>(&store, &steps).await,
                    3 => run::<apply_changed::Counter>(&store, &steps).await,
                    _ => run::<event_changed::Counter>(&store, &steps).await,
                }
            }
            let last = store.repository::<event_changed::Counter>().with_snapshots();
            last.snapshot("1").await.unwrap();
            if last.load("1").await.unwrap().events_replayed() == 0 {
                HITS.fetch_add(1, Ordering::Relaxed);
            }
        });
        prop_assert!(HITS.load(Ordering::Relaxed) > 0, "snapshots are used");
    }
}
