//! What a command on several participants rests on still holds when its events are written.

use leftfold::{
    Aggregate, Boundary, Event, ExecuteError, Model, Store,
    model::{Append, ExpectedRevision::Any, NewEvent, Revision, StreamName},
    stores::{Delete, StreamMetadata},
};
use serde::{Deserialize, Serialize};

use crate::account::{AccountEvent, BankAccount};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum GuestEvent {
    #[event("GuestRegistered")]
    Registered {
        #[tag("email")]
        email: String,
    },
}

#[derive(Default)]
struct Guest {
    registered: bool,
}

impl Aggregate for Guest {
    const CATEGORY: &'static str = "guest";
    type Event = GuestEvent;

    fn apply(&mut self, _: &GuestEvent) {
        self.registered = true;
    }
}

#[derive(Clone)]
struct Email {
    address: String,
    taken: bool,
}

impl Model for Email {
    type Event = GuestEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("email", &self.address)
    }
    fn apply(&mut self, _: &GuestEvent) {
        self.taken = true;
    }
}

async fn register(store: &Store, id: &str) -> Result<(), ExecuteError<&'static str>> {
    let email = Email {
        address: "ann@example.org".into(),
        taken: false,
    };
    let guests = store.repository::<Guest>();
    let registration = store.unit_of_work((guests.aggregate(id), store.model(email)));
    let committed = registration
        .execute(|(guest, email)| match (guest.registered, email.taken) {
            (true, _) => Err("registered"),
            (_, true) => Err("taken"),
            _ => {
                let email = email.address.clone();
                Ok((GuestEvent::Registered { email }, ()))
            }
        })
        .await?;
    assert_eq!(committed.streams.len(), 1);
    Ok(())
}

#[tokio::test]
async fn an_aggregate_and_a_model_are_decided_on_in_one_append() {
    let store = Store::memory();
    register(&store, "1").await.unwrap();
    let refused = register(&store, "2").await.unwrap_err();
    assert!(
        matches!(refused, ExecuteError::Rejected("taken")),
        "{refused}"
    );
    assert_eq!(
        store
            .repository::<Guest>()
            .load("2")
            .await
            .unwrap()
            .event_count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_guests_with_one_email_at_once_one_is_registered() {
    let store = Store::memory();
    let tasks: Vec<_> = (0..32)
        .map(|id| {
            let store = store.clone();
            tokio::spawn(async move { register(&store, &id.to_string()).await.is_ok() })
        })
        .collect();
    let mut registered = 0;
    for task in tasks {
        registered += u32::from(task.await.unwrap());
    }
    assert_eq!(registered, 1);
}

#[tokio::test]
async fn an_aggregate_that_gets_no_events_is_guarded_too() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    accounts.execute("ann", |a| a.deposit(100)).await.unwrap();
    // Bob may overdraw as long as Ann has money. She spends it between the decision and its append.
    let both = store.unit_of_work((accounts.aggregate("ann"), accounts.aggregate("bob")));
    let rival = store.event_store().clone();
    let mut decisions = 0;
    let overdrawn = both.execute(|(ann, _)| {
        decisions += 1;
        if decisions == 1 {
            let spent = NewEvent::json("WithdrawalMade".try_into().unwrap(), r#"{"amount":100}"#);
            let stream = StreamName::new("account-ann").unwrap();
            let append = Append::to(stream, Any, vec![spent]).unwrap();
            futures_util::FutureExt::now_or_never(rival.append(append))
                .unwrap()
                .unwrap();
        }
        match ann.balance {
            0 => Err("nothing left"),
            _ => Ok(((), AccountEvent::DepositMade { amount: 1 })),
        }
    });
    let refused = overdrawn.await.unwrap_err();
    assert!(
        matches!(refused, ExecuteError::Rejected("nothing left")),
        "{refused}"
    );
    assert_eq!(accounts.load("bob").await.unwrap().event_count(), 0);
}

/// What happens to Ann's account between the decision and its append.
async fn meanwhile(store: &Store, what: &str) {
    let stream = StreamName::new("account-ann").unwrap();
    let events = store.event_store();
    let deposit = || {
        let deposit = NewEvent::json("DepositMade".try_into().unwrap(), r#"{"amount":1}"#);
        Append::to(stream.clone(), Any, vec![deposit]).unwrap()
    };
    let delete = || Delete::stream(stream.clone(), Any);
    let metadata = StreamMetadata::default().with_truncate_before(Revision::new(1));
    match what {
        "created" => drop(events.append(deposit()).await.unwrap()),
        "truncated" => {
            let append = metadata.append_for(&stream, Any).unwrap();
            events.append(append).await.unwrap();
        }
        "tombstoned" => {
            let tombstone = Delete::tombstone(stream.clone(), Any);
            events.delete(tombstone).await.unwrap();
        }
        _ => drop(events.delete(delete()).await.unwrap()),
    }
    if what == "deleted and recreated" {
        events.append(deposit()).await.unwrap();
    }
}

#[tokio::test]
async fn an_aggregate_that_gets_no_events_is_guarded_against_every_end_of_its_life() {
    for what in [
        "created",
        "truncated",
        "tombstoned",
        "deleted",
        "deleted and recreated",
    ] {
        for cached in [0, 10] {
            let store = Store::memory();
            let accounts = store.repository::<BankAccount>();
            let accounts = match cached {
                0 => accounts.with_snapshots(),
                states => accounts.with_state_cache(states),
            };
            if what != "created" {
                accounts.execute("ann", |a| a.deposit(100)).await.unwrap();
                accounts.execute("ann", |a| a.deposit(100)).await.unwrap();
            }
            let both = store.unit_of_work((accounts.aggregate("ann"), accounts.aggregate("bob")));
            let mut seen = Vec::new();
            let decided = both.execute(|(ann, _)| {
                if seen.is_empty() {
                    futures_util::FutureExt::now_or_never(meanwhile(&store, what)).unwrap();
                }
                seen.push(ann.balance);
                match seen.len() {
                    1 => Ok(((), AccountEvent::DepositMade { amount: 1 })),
                    _ => Err("decided again"),
                }
            });
            let refused = decided.await;
            assert!(refused.is_err(), "{what}: {refused:?}");
            let again = match what {
                "created" | "deleted and recreated" => vec![1],
                "deleted" => vec![0],
                _ => vec![],
            };
            assert_eq!(seen[1..], again, "{what}: {refused:?}");
            assert_eq!(
                accounts.load("bob").await.unwrap().event_count(),
                0,
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn one_key_of_a_request_serves_each_of_its_commands() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    accounts.execute("1", |a| a.deposit(100)).await.unwrap();
    let deposit = accounts.with_idempotency_key("deposit", "request-1");
    let withdraw = accounts.with_idempotency_key("withdraw", "request-1");
    for repeated in [false, true] {
        let deposited = deposit.execute("1", |a| a.deposit(5)).await.unwrap();
        let withdrawn = withdraw.execute("1", |a| a.withdraw(7)).await.unwrap();
        assert_eq!(
            (deposited.repeated, withdrawn.repeated),
            (repeated, repeated)
        );
        assert_eq!(
            withdrawn.events,
            [AccountEvent::WithdrawalMade { amount: 7 }]
        );
    }
    assert_eq!(accounts.load("1").await.unwrap().state().balance, 98);

    let email = |address: &str| Email {
        address: address.into(),
        taken: false,
    };
    let take = |email: &Email| GuestEvent::Registered {
        email: email.address.clone(),
    };
    for address in ["a@example.org", "b@example.org"] {
        let decision = store
            .decision(email(address))
            .with_idempotency_key("register", "request-1");
        assert!(!decision.decide(take).await.unwrap().repeated, "{address}");
        assert!(decision.decide(take).await.unwrap().repeated, "{address}");
    }
}
