//! What a command can be told besides what to decide: metadata, keys, moments, creation, companions.

use futures_util::StreamExt;
use leftfold::{
    Created, Event, ExecuteError, LoadError, Metadata, Store,
    model::{ExpectedRevision, Position, Read, RecordedEvent, Revision, Timestamp},
    stores::{Delete, Scavenge},
    testing::{self, TestClock},
};
use serde::{Deserialize, Serialize};

use crate::{
    account::{AccountEvent, BankAccount, InsufficientFunds},
    faulty::{Fault, Faulty},
};

async fn everything(store: &Store) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    let mut batches = store.event_store().read(Read::all());
    while let Some(batch) = batches.next().await {
        events.extend(batch.unwrap().events);
    }
    events
}

#[tokio::test]
async fn metadata_is_stored_with_every_event_and_carried_on_by_what_it_causes() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    let metadata = Metadata::new()
        .correlation("order-17")
        .actor("ann")
        .with("channel", "web");
    let two = |account: &BankAccount| {
        Ok::<_, InsufficientFunds>([account.deposit(1)?, account.deposit(2)?])
    };
    accounts
        .with_metadata(metadata.clone())
        .execute("1", two)
        .await
        .unwrap();
    let events = everything(&store).await;
    assert!(events.iter().all(|event| Metadata::of(event) == metadata));
    assert_eq!(
        events[0].metadata,
        r#"{"$correlationId":"order-17","$actor":"ann","channel":"web"}"#
    );
    let caused = Metadata::caused_by(&events[1]);
    assert_eq!(caused.correlation.as_deref(), Some("order-17"));
    assert_eq!(caused.causation, Some(events[1].id.to_string()));
    let refused = accounts
        .with_metadata(Metadata::new().with("$version", 9))
        .execute("1", two)
        .await
        .unwrap_err();
    assert!(matches!(refused, ExecuteError::Encode(_)), "{refused:?}");
    assert_eq!(everything(&store).await.len(), 2);
}

#[tokio::test]
async fn a_command_with_a_key_is_carried_out_once() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    accounts
        .execute("1", |account| account.deposit(100))
        .await
        .unwrap();
    let payment = accounts.with_idempotency_key("withdraw", "payment-77");
    let first = payment
        .execute("1", |account| account.withdraw(80))
        .await
        .unwrap();
    assert!(!first.repeated);
    // Now there is too little for it; but it went through.
    let again = payment
        .execute("1", |account| account.withdraw(80))
        .await
        .unwrap();
    assert!(again.repeated);
    assert_eq!(
        (again.revision, again.position),
        (first.revision, first.position)
    );
    assert_eq!(again.events, [AccountEvent::WithdrawalMade { amount: 80 }]);
    assert_eq!(accounts.load("1").await.unwrap().state().balance, 20);
    // The key is about this account.
    payment
        .execute("2", |account| account.deposit(1))
        .await
        .unwrap();
    assert_eq!(accounts.load("2").await.unwrap().state().balance, 1);
    // A refusal leaves nothing behind.
    let big = accounts.with_idempotency_key("pay", "big");
    big.execute("1", |account| account.withdraw(30))
        .await
        .unwrap_err();
    accounts
        .execute("1", |account| account.deposit(10))
        .await
        .unwrap();
    assert!(
        !big.execute("1", |account| account.withdraw(30))
            .await
            .unwrap()
            .repeated
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_commands_with_one_key_at_once_one_is_carried_out() {
    for (fault, times) in [
        (Fault::Refused, 0),
        (Fault::AnswerLost, 5),
        (Fault::AppendLost, 5),
    ] {
        let store = Store::new(Faulty::new(fault, times));
        let accounts = store.repository::<BankAccount>().with_attempts(1_000);
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let payment = accounts.with_idempotency_key("withdraw", "payment-1");
                tokio::spawn(async move {
                    payment
                        .execute("1", |account| account.deposit(5))
                        .await
                        .unwrap()
                })
            })
            .collect();
        let mut carried_out = 0;
        for task in tasks {
            carried_out += usize::from(!task.await.unwrap().repeated);
        }
        assert!(
            carried_out == 1 || times > 0 && carried_out > 1,
            "{carried_out}"
        );
        assert_eq!(accounts.load("1").await.unwrap().state().balance, 5);
    }
}

#[tokio::test]
async fn an_aggregate_can_be_loaded_as_it_was() {
    let clock = TestClock::from(Timestamp::from_micros(0));
    let accounts = testing::store(&clock).repository::<BankAccount>();
    for amount in [1, 10, 100] {
        accounts
            .execute("other", |account| account.deposit(9))
            .await
            .unwrap();
        accounts
            .execute("1", |account| account.deposit(amount))
            .await
            .unwrap();
    }
    let balance = async |at: leftfold::AsOf| {
        accounts
            .load_at("1", at)
            .await
            .unwrap()
            .into_state()
            .balance
    };
    assert_eq!(balance(Revision::new(0).into()).await, 1);
    assert_eq!(balance(Revision::new(1).into()).await, 11);
    assert_eq!(balance(Revision::MAX.into()).await, 111);
    for (position, expected) in [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 1),
        (4, 11),
        (5, 11),
        (6, 111),
        (99, 111),
    ] {
        assert_eq!(
            balance(Position::new(position).into()).await,
            expected,
            "position {position}"
        );
        // The clock gives the nth event the time n - 1 seconds.
        if position > 0 {
            let time = Timestamp::from_micros((position - 1) * 1_000_000);
            assert_eq!(balance(time.into()).await, expected, "time {time:?}");
        }
    }
}

#[tokio::test]
async fn two_runs_on_a_steady_store_are_the_same_to_the_last_byte() {
    let run = async || {
        let store = testing::store(&TestClock::from(Timestamp::from_micros(7)));
        let accounts = store.repository::<BankAccount>();
        accounts
            .execute("1", |account| account.deposit(1))
            .await
            .unwrap();
        accounts
            .execute("1", |account| account.deposit(2))
            .await
            .unwrap();
        everything(&store).await
    };
    let (one, other) = (run().await, run().await);
    assert_eq!(one, other);
    assert_ne!(one[0].id, one[1].id);
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq, Clone)]
enum LoanEvent {
    #[event("LoanGranted")]
    Granted { cents: u64 },
    #[event("LoanRepaid")]
    Repaid { cents: u64 },
}

#[derive(Debug)]
struct Loan {
    owed: u64,
}

impl Created for Loan {
    const CATEGORY: &'static str = "loan";
    type Event = LoanEvent;

    fn create(event: &LoanEvent) -> Option<Self> {
        match event {
            LoanEvent::Granted { cents } => Some(Self { owed: *cents }),
            LoanEvent::Repaid { .. } => None,
        }
    }
    fn apply(&mut self, event: &LoanEvent) {
        if let LoanEvent::Repaid { cents } = event {
            self.owed -= cents;
        }
    }
}

#[tokio::test]
async fn what_has_no_default_is_created_once_and_by_its_first_event_only() {
    let loans = Store::memory().repository::<Option<Loan>>();
    let grant = || Ok::<_, String>(LoanEvent::Granted { cents: 500 });
    loans.create("1", grant).await.unwrap();
    let exists = loans.create("1", grant).await.unwrap_err();
    assert!(
        matches!(
            exists,
            ExecuteError::Exists {
                revision: Revision::FIRST,
                ..
            }
        ),
        "{exists:?}"
    );
    let repay = |loan: &Option<Loan>| match loan {
        Some(_) => Ok(LoanEvent::Repaid { cents: 200 }),
        None => Err("no such loan"),
    };
    loans.execute("1", repay).await.unwrap();
    assert_eq!(
        loans.load("1").await.unwrap().into_state().unwrap().owed,
        300
    );
    assert!(matches!(
        loans.execute("2", repay).await,
        Err(ExecuteError::Rejected("no such loan"))
    ));

    let wrong = |_: &Option<Loan>| Ok::<_, String>(LoanEvent::Repaid { cents: 1 });
    loans.execute("3", wrong).await.unwrap();
    let error = loans.load("3").await.unwrap_err();
    let LoadError::ApplyPanicked {
        message,
        event_type,
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(
        message.contains("cannot be the first of a loan"),
        "{message}"
    );
    assert_eq!(event_type.as_str(), "LoanRepaid");
}

#[tokio::test]
async fn an_apply_that_panics_is_an_error_that_names_the_event_and_writes_nothing() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    let overdraw =
        |_: &BankAccount| Ok::<_, InsufficientFunds>(AccountEvent::WithdrawalMade { amount: 1 });
    accounts.execute("1", overdraw).await.unwrap();
    let error = accounts
        .execute("1", |account| account.deposit(1))
        .await
        .unwrap_err();
    let ExecuteError::Load(LoadError::ApplyPanicked {
        revision, message, ..
    }) = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(*revision, Revision::FIRST);
    assert!(message.contains("overflow"), "{message}");
    assert_eq!(store.event_store().head().await.unwrap(), Position::new(1));
}

fn transfer(
    (from, to): &(BankAccount, BankAccount),
    amount: u64,
) -> Result<(AccountEvent, AccountEvent), InsufficientFunds> {
    Ok((from.withdraw(amount)?, to.deposit(amount)?))
}

#[tokio::test]
async fn a_command_on_two_aggregates_changes_both_or_none() {
    let faulty = Faulty::new(Fault::Raced, 3);
    let calm = Store::new(faulty.inner.clone()).repository::<BankAccount>();
    calm.execute("a", |account| account.deposit(100))
        .await
        .unwrap();
    let store = Store::new(faulty);
    let accounts = store.repository::<BankAccount>();
    let both = store.unit_of_work((accounts.aggregate("a"), accounts.aggregate("b")));
    let done = both.execute(|states| transfer(states, 30)).await.unwrap();
    assert!(done.attempts > 1, "{done:?}");
    assert_eq!(done.streams.len(), 2);
    assert_eq!(accounts.load("b").await.unwrap().state().balance, 30);
    let head = store.event_store().head().await.unwrap();
    let refused = both
        .execute(|states| transfer(states, 1_000_000))
        .await
        .unwrap_err();
    assert!(matches!(refused, ExecuteError::Rejected(_)), "{refused:?}");
    let nothing = both.execute(|_| Ok::<_, String>(((), ()))).await.unwrap();
    assert_eq!((nothing.position, nothing.streams.len()), (None, 0));
    assert_eq!(store.event_store().head().await.unwrap(), head);
    let twice = store.unit_of_work((accounts.aggregate("a"), accounts.aggregate("a")));
    let error = twice
        .execute(|states| transfer(states, 1))
        .await
        .unwrap_err();
    assert!(matches!(error, ExecuteError::Twice { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transfers_in_all_directions_keep_the_sum() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    let names = ["a", "b", "c"];
    for name in names {
        accounts
            .execute(name, |account| account.deposit(1_000))
            .await
            .unwrap();
    }
    let tasks: Vec<_> = (0..60)
        .map(|n| {
            let from = accounts.aggregate(names[n % 3]);
            let to = accounts.aggregate(names[(n + 1 + n % 2) % 3]);
            let both = store.unit_of_work((from, to)).with_attempts(10_000);
            tokio::spawn(async move { both.execute(|states| transfer(states, 7)).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut sum = 0;
    for name in names {
        sum += accounts.load(name).await.unwrap().state().balance;
    }
    assert_eq!(sum, 3_000);
    assert_eq!(
        store.event_store().head().await.unwrap(),
        Position::new(3 + 120)
    );
}

#[tokio::test]
async fn a_transfer_with_a_key_is_carried_out_once() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    accounts
        .execute("a", |account| account.deposit(100))
        .await
        .unwrap();
    let both = store
        .unit_of_work((accounts.aggregate("a"), accounts.aggregate("b")))
        .with_idempotency_key("transfer", "t-1");
    let first = both.execute(|states| transfer(states, 60)).await.unwrap();
    let again = both.execute(|states| transfer(states, 60)).await.unwrap();
    assert!(again.repeated && !first.repeated);
    assert_eq!(
        (again.streams, again.position),
        (first.streams, first.position)
    );
    assert_eq!(accounts.load("a").await.unwrap().state().balance, 40);
}

#[tokio::test]
async fn a_key_whose_events_were_reclaimed_is_told_as_used_and_not_as_lost_to_others() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    let keyed = accounts.with_idempotency_key("deposit", "d-1");
    keyed.execute("1", |a| a.deposit(5)).await.unwrap();
    let stream = accounts.stream("1").unwrap();
    let delete = Delete::stream(stream, ExpectedRevision::Any);
    store.event_store().delete(delete).await.unwrap();
    let mut scavenge = store.event_store().scavenge(Scavenge::default());
    while let Some(progress) = scavenge.next().await {
        progress.unwrap();
    }
    let error = keyed.execute("1", |a| a.deposit(5)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::KeyUsed { .. }), "{error}");
}
