//! Loading and executing, on a store that works and on stores that do not.

use leftfold::{
    ExecuteError, LoadError, Store,
    model::{Append, EventType, ExpectedRevision, NewEvent, Position, Revision, StreamName},
};

use crate::{
    account::{AccountEvent, BankAccount, InsufficientFunds},
    faulty::{Fault, Faulty},
};

#[tokio::test]
async fn the_balance_is_the_fold_of_deposits_and_withdrawals_after_reopening_too() {
    let directory = tempfile::tempdir().unwrap();
    {
        let accounts = Store::open(directory.path())
            .await
            .unwrap()
            .repository::<BankAccount>();
        let first = accounts
            .execute("1", |account| account.deposit(100))
            .await
            .unwrap();
        assert_eq!(
            (first.revision, first.position, first.attempts),
            (Some(Revision::FIRST), Some(Position::FIRST), 1)
        );
        accounts
            .execute("1", |account| account.withdraw(30))
            .await
            .unwrap();
    }
    let accounts = Store::open(directory.path())
        .await
        .unwrap()
        .repository::<BankAccount>();
    let loaded = accounts.load("1").await.unwrap();
    assert_eq!((loaded.state().balance, loaded.event_count()), (70, 2));
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_whole_and_writes_nothing() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    let refused = accounts
        .execute("1", |account| account.withdraw(5))
        .await
        .unwrap_err();
    let ExecuteError::Rejected(why) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        why,
        InsufficientFunds {
            balance: 0,
            requested: 5
        }
    );
    assert_eq!(store.event_store().head().await.unwrap(), Position::START);
}

#[tokio::test]
async fn a_decision_of_no_events_is_a_success() {
    let accounts = Store::memory().repository::<BankAccount>();
    let nothing = accounts
        .execute("1", |_| Ok::<_, InsufficientFunds>(()))
        .await
        .unwrap();
    assert_eq!((nothing.events.len(), nothing.position), (0, None));
    let two = |account: &BankAccount| {
        Ok::<_, InsufficientFunds>([account.deposit(1)?, account.deposit(2)?])
    };
    assert_eq!(
        accounts.execute("1", two).await.unwrap().revision,
        Some(Revision::new(1))
    );
}

#[tokio::test]
async fn after_a_conflict_the_command_decides_on_a_fresh_fold() {
    let accounts = Store::new(Faulty::new(Fault::Raced, 3)).repository::<BankAccount>();
    let mut seen = Vec::new();
    let committed = accounts
        .execute("1", |account| {
            seen.push(account.balance);
            account.deposit(1)
        })
        .await
        .unwrap();
    assert_eq!(seen, [0, 1_000, 2_000, 3_000]);
    assert_eq!(committed.attempts, 4);
    assert_eq!(accounts.load("1").await.unwrap().state().balance, 3_001);
}

#[tokio::test(start_paused = true)]
async fn a_command_outlasts_the_burst_of_another_process_that_wins_each_time() {
    let accounts = Store::new(Faulty::new(Fault::Raced, 40)).repository::<BankAccount>();
    let committed = accounts
        .execute("1", |account| account.deposit(1))
        .await
        .unwrap();
    assert_eq!(committed.attempts, 41);
}

#[tokio::test]
async fn conflicts_without_end_are_reported_with_their_number() {
    let accounts = Store::new(Faulty::new(Fault::Raced, 99))
        .repository::<BankAccount>()
        .with_attempts(3);
    let error = accounts
        .execute("1", |account| account.deposit(1))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ExecuteError::Conflict { attempts: 3, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_is_stored_once() {
    for fault in [Fault::AnswerLost, Fault::AppendLost] {
        let accounts = Store::new(Faulty::new(fault, 2)).repository::<BankAccount>();
        accounts
            .execute("1", |account| account.deposit(100))
            .await
            .unwrap();
        assert_eq!(
            accounts.load("1").await.unwrap().event_count(),
            1,
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_an_absent_store_and_a_refusal_are_told_apart() {
    let unknown = Store::new(Faulty::new(Fault::AppendLost, 99))
        .repository::<BankAccount>()
        .with_attempts(2);
    let error = unknown
        .execute("1", |account| account.deposit(1))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ExecuteError::OutcomeUnknown { attempts: 2, .. }),
        "{error:?}"
    );
    let refused = Store::new(Faulty::new(Fault::Refused, 1)).repository::<BankAccount>();
    let error = refused
        .execute("1", |account| account.deposit(1))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ExecuteError::Unavailable { .. }),
        "{error:?}"
    );
    let invalid = Store::new(Faulty::new(Fault::Invalid, 1)).repository::<BankAccount>();
    let error = invalid
        .execute("1", |account| account.deposit(1))
        .await
        .unwrap_err();
    assert!(matches!(error, ExecuteError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("a rule of the store"), "{error}");
}

#[tokio::test]
async fn an_event_of_another_program_is_an_error_that_names_it() {
    let store = Store::memory();
    let stream = StreamName::new("account-1").unwrap();
    let strange = NewEvent::json(EventType::new("Strange").unwrap(), "{}");
    let append = Append::to(stream.clone(), ExpectedRevision::Any, vec![strange]).unwrap();
    store.event_store().append(append).await.unwrap();
    let error = store
        .repository::<BankAccount>()
        .load("1")
        .await
        .unwrap_err();
    let LoadError::Undecodable {
        stream: named,
        revision,
        event_type,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (named, revision, event_type.as_str()),
        (stream, Revision::FIRST, "Strange")
    );
}

#[tokio::test]
async fn an_id_that_makes_no_stream_name_is_refused() {
    let accounts = Store::memory().repository::<BankAccount>();
    for id in [String::new(), "x".repeat(1_024)] {
        assert!(matches!(
            accounts.load(&id).await,
            Err(LoadError::InvalidId { .. })
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_tasks_on_one_account_are_each_applied_exactly_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let accounts = store.repository::<BankAccount>().with_attempts(10_000);
    let tasks: Vec<_> = (1..=64)
        .map(|amount| {
            let accounts = accounts.clone();
            tokio::spawn(async move {
                accounts
                    .execute("1", |account| account.deposit(amount))
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut applied = Vec::new();
    for task in tasks {
        let committed = task.await.unwrap();
        let [AccountEvent::DepositMade { amount }] = committed.events[..] else {
            panic!("{committed:?}")
        };
        applied.push((committed.revision.unwrap().get(), amount));
    }
    applied.sort_unstable();
    assert!(
        applied
            .iter()
            .zip(0..)
            .all(|(&(revision, _), expected)| revision == expected)
    );
    assert_eq!(
        accounts.load("1").await.unwrap().state().balance,
        64 * 65 / 2
    );
}
