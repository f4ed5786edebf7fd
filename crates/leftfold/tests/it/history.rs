//! Looking back at an account.

use futures_util::TryStreamExt;
use leftfold::{
    FieldChange, HistoryError, LoadError, Metadata, Store,
    model::{Append, EventType, ExpectedRevision, NewEvent, Revision},
};
use serde_json::json;

use crate::account::{AccountEvent, BankAccount};

async fn account() -> leftfold::Repository<BankAccount> {
    let accounts = Store::memory().repository::<BankAccount>();
    let of_order = accounts.with_metadata(Metadata::new().correlation("order-17"));
    accounts
        .execute("7f3", |account| account.deposit(100))
        .await
        .unwrap();
    of_order
        .execute("7f3", |account| account.withdraw(30))
        .await
        .unwrap();
    accounts
        .execute("7f3", |account| account.deposit(0))
        .await
        .unwrap();
    accounts
}

#[tokio::test]
async fn each_event_tells_what_it_changed_and_why_it_was_written() {
    let accounts = account().await;
    let steps: Vec<_> = accounts.history("7f3").try_collect().await.unwrap();
    let states: Vec<_> = steps
        .iter()
        .map(|s| (s.before.clone(), s.after.clone()))
        .collect();
    let balance = |cents: u64| json!({ "balance": cents });
    assert_eq!(
        states,
        [
            (balance(0), balance(100)),
            (balance(100), balance(70)),
            (balance(70), balance(70))
        ]
    );
    let withdrawal = &steps[1];
    let change = FieldChange {
        field: "/balance".into(),
        before: Some(100.into()),
        after: Some(70.into()),
    };
    assert_eq!(withdrawal.changes, [change]);
    assert_eq!(withdrawal.metadata.correlation.as_deref(), Some("order-17"));
    assert_eq!(
        withdrawal.values[0].event,
        AccountEvent::WithdrawalMade { amount: 30 }
    );
    assert_eq!(withdrawal.revision, Revision::new(1));
    assert!(steps[2].changes.is_empty());
    assert_eq!(
        accounts
            .history("nobody")
            .try_collect::<Vec<_>>()
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn the_last_change_of_a_field_is_found_and_two_moments_are_compared() {
    let accounts = account().await;
    let last = accounts
        .last_change("7f3", "/balance")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(last.revision, Revision::new(1));
    assert!(
        accounts
            .last_change("7f3", "/owner")
            .await
            .unwrap()
            .is_none()
    );
    let (first, third) = (Revision::FIRST, Revision::new(2));
    let changes = accounts.diff("7f3", first, third).await.unwrap();
    assert_eq!(
        (&changes[0].before, &changes[0].after),
        (&Some(100.into()), &Some(70.into()))
    );
    assert!(
        accounts
            .diff("7f3", Revision::new(1), third)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_history_ends_with_the_event_that_cannot_be_read() {
    let accounts = account().await;
    let store = Store::memory();
    let odd = NewEvent::json(
        EventType::new("DepositMade").unwrap(),
        r#"{"amount":"much"}"#,
    );
    let append = Append::to(
        accounts.stream("7f3").unwrap(),
        ExpectedRevision::Any,
        vec![odd],
    );
    store.event_store().append(append.unwrap()).await.unwrap();
    let history = store.repository::<BankAccount>().history("7f3");
    let ended = history.try_collect::<Vec<_>>().await.unwrap_err();
    let HistoryError::Load(LoadError::Undecodable { revision, .. }) = ended else {
        panic!("{ended}");
    };
    assert_eq!(revision, Revision::FIRST);
}
