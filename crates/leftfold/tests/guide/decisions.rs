//! Decisions that rest on more than one account: the chapter on decisions.

use leftfold::{Boundary, Event, Model, Store, testing::GivenEvents};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum BankEvent {
    #[event("AccountOpened")]
    Opened {
        #[tag("account")]
        account: String,
        #[tag("owner")]
        owner: String,
    },
    #[event("CashDeposited")]
    Deposited {
        #[tag("account")]
        account: String,
        cents: u64,
    },
    #[event("CashWithdrawn")]
    Withdrawn {
        #[tag("account")]
        account: String,
        cents: u64,
    },
}

/// How many accounts an owner has.
#[derive(Clone)]
struct Owner {
    name: String,
    accounts: u32,
}

impl Model for Owner {
    type Event = BankEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("owner", &self.name).of_types(["AccountOpened"])
    }

    fn apply(&mut self, _: &BankEvent) {
        self.accounts += 1;
    }
}

/// Whether an account is open, and what is on it.
#[derive(Clone)]
struct Account {
    id: String,
    open: bool,
    balance: u64,
}

impl Model for Account {
    type Event = BankEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("account", &self.id)
    }

    fn apply(&mut self, event: &BankEvent) {
        match event {
            BankEvent::Opened { .. } => self.open = true,
            BankEvent::Deposited { cents, .. } => self.balance += cents,
            BankEvent::Withdrawn { cents, .. } => self.balance -= cents,
        }
    }
}

impl Owner {
    fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            accounts: 0,
        }
    }
}

impl Account {
    fn of(id: &str) -> Self {
        Self {
            id: id.into(),
            open: false,
            balance: 0,
        }
    }

    fn withdraw(&self, cents: u64) -> Result<BankEvent, &'static str> {
        if cents > self.balance {
            return Err("insufficient funds");
        }
        Ok(BankEvent::Withdrawn {
            account: self.id.clone(),
            cents,
        })
    }
}

fn open((account, owner): &(Account, Owner)) -> Result<BankEvent, &'static str> {
    if account.open {
        return Err("there is such an account");
    }
    if owner.accounts >= 3 {
        return Err("three accounts are enough");
    }
    Ok(BankEvent::Opened {
        account: account.id.clone(),
        owner: owner.name.clone(),
    })
}

#[tokio::test]
async fn an_account_is_opened() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::memory();
    let ann = (Account::of("7f3"), Owner::named("ann"));
    store.decide(ann, open).await?;

    let bob = (Account::of("7f3"), Owner::named("bob"));
    assert!(store.decide(bob, open).await.is_err()); // there is such an account
    Ok(())
}

#[tokio::test]
async fn deposits_do_not_block_withdrawals() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::memory();
    let deposit = |account: &Account| {
        Ok::<_, String>(BankEvent::Deposited {
            account: account.id.clone(),
            cents: 100,
        })
    };
    store.decide(Account::of("7f3"), deposit).await?;

    let withdrawals = Boundary::tag("account", "7f3").of_types(["CashWithdrawn"]);
    let decision = store
        .decision(Account::of("7f3"))
        .with_consistency_boundary(withdrawals);
    decision.decide(|account| account.withdraw(30)).await?;
    Ok(())
}

#[test]
fn nobody_has_four_accounts() {
    let opened = |account: &str| BankEvent::Opened {
        account: account.into(),
        owner: "ann".into(),
    };
    let models = || (Account::of("4"), Owner::named("ann"));
    GivenEvents::of([opened("1"), opened("2")])
        .when(models(), open)
        .then([opened("4")]);
    GivenEvents::of([opened("1"), opened("2"), opened("3")])
        .when(models(), open)
        .then_err("three accounts are enough");
}
