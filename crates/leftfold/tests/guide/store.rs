//! Storing the account: the chapter on repositories.

use leftfold::{
    Created, Event, ExecuteError, Metadata, Store,
    model::{Position, Revision},
};
use serde::{Deserialize, Serialize};

use crate::account::{BankAccount, InsufficientFunds};

#[tokio::test]
async fn deposit_withdraw_reload() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let data = directory.path();
    {
        let store = Store::open(data).await?; // or Store::memory()
        let accounts = store.repository::<BankAccount>();
        accounts
            .execute("7f3", |account| account.deposit(100))
            .await?;
        accounts
            .execute("7f3", |account| account.withdraw(30))
            .await?;
        assert_eq!(accounts.load("7f3").await?.state().balance, 70);
        store.close().await?;
    }

    let accounts = Store::open(data).await?.repository::<BankAccount>();
    let loaded = accounts.load("7f3").await?;
    assert_eq!(loaded.state().balance, 70);
    assert_eq!(loaded.event_count(), 2);
    Ok(())
}

#[tokio::test]
async fn errors_stay_whole() -> Result<(), Box<dyn std::error::Error>> {
    let accounts = Store::memory().repository::<BankAccount>();
    match accounts
        .execute("7f3", |account| account.withdraw(30))
        .await
    {
        Ok(committed) => println!("stands at {:?}", committed.position),
        // The domain said no. This is its own error, with all it knows.
        Err(ExecuteError::Rejected(InsufficientFunds { balance })) => {
            assert_eq!(balance, 0);
        }
        // Nothing was written: others were faster each time, or the store takes nothing now.
        Err(ExecuteError::Conflict { attempts, .. }) => println!("gave up after {attempts}"),
        Err(ExecuteError::Unavailable { cause }) => println!("later, perhaps: {cause}"),
        // May have been written. Execute again with the same key to find out.
        Err(ExecuteError::OutcomeUnknown { cause, .. }) => println!("who knows: {cause}"),
        Err(other) => return Err(other.into()),
    }
    Ok(())
}

#[tokio::test]
async fn the_past_can_be_loaded() -> Result<(), Box<dyn std::error::Error>> {
    let accounts = Store::memory().repository::<BankAccount>();
    for cents in [1, 10, 100] {
        accounts
            .execute("7f3", |account| account.deposit(cents))
            .await?;
    }
    let second = accounts.load_at("7f3", Revision::new(1)).await?;
    assert_eq!(second.state().balance, 11);
    let first = accounts.load_at("7f3", Position::new(1)).await?;
    assert_eq!(first.state().balance, 1);
    Ok(())
}

#[tokio::test]
async fn a_payment_is_made_once() -> Result<(), Box<dyn std::error::Error>> {
    let accounts = Store::memory().repository::<BankAccount>();
    accounts
        .execute("7f3", |account| account.deposit(100))
        .await?;

    let payment = accounts
        .with_idempotency_key("withdraw", "payment-77")
        .with_metadata(Metadata::new().correlation("order-17").actor("ann"));
    let first = payment
        .execute("7f3", |account| account.withdraw(80))
        .await?;
    let again = payment
        .execute("7f3", |account| account.withdraw(80))
        .await?;
    assert!(again.repeated);
    assert_eq!(again.events, first.events);
    Ok(())
}

#[tokio::test]
async fn a_transfer_changes_both_accounts_or_none() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    accounts
        .execute("ann", |account| account.deposit(100))
        .await?;

    let transfer = store.unit_of_work((accounts.aggregate("ann"), accounts.aggregate("bob")));
    transfer
        .execute(|(ann, bob)| Ok::<_, InsufficientFunds>((ann.withdraw(30)?, bob.deposit(30)?)))
        .await?;
    assert_eq!(accounts.load("bob").await?.state().balance, 30);
    Ok(())
}

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    #[event("LoanGranted")]
    Granted { cents: u64 },
    #[event("LoanRepaid")]
    Repaid { cents: u64 },
}

struct Loan {
    owed: u64,
}

impl Created for Loan {
    const CATEGORY: &'static str = "loan";
    type Event = LoanEvent;

    fn create(event: &LoanEvent) -> Option<Self> {
        match event {
            LoanEvent::Granted { cents } => Some(Loan { owed: *cents }),
            LoanEvent::Repaid { .. } => None,
        }
    }

    fn apply(&mut self, event: &LoanEvent) {
        match event {
            LoanEvent::Granted { .. } => {}
            LoanEvent::Repaid { cents } => self.owed -= cents,
        }
    }
}

#[tokio::test]
async fn a_loan_is_granted_once() -> Result<(), Box<dyn std::error::Error>> {
    let loans = Store::memory().repository::<Option<Loan>>();
    loans
        .create("l1", || Ok::<_, String>(LoanEvent::Granted { cents: 500 }))
        .await?;

    let again = loans
        .create("l1", || Ok::<_, String>(LoanEvent::Granted { cents: 9 }))
        .await;
    assert!(matches!(again, Err(ExecuteError::Exists { .. })));

    let repay = |loan: &Option<Loan>| match loan {
        Some(loan) => Ok(LoanEvent::Repaid { cents: loan.owed }),
        None => Err("no such loan"),
    };
    loans.execute("l1", repay).await.unwrap();
    let owed = loans.load("l1").await?.into_state().map(|loan| loan.owed);
    assert_eq!(owed, Some(0));
    Ok(())
}
