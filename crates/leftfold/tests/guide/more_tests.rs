//! More about tests of domain code: the chapter on testing.

use leftfold::{
    model::Timestamp,
    testing::{self, Given, TestClock},
};

use crate::account::{AccountEvent, BankAccount, InsufficientFunds};

use AccountEvent::{Deposited, Withdrawn};

#[test]
fn an_expectation_of_each_kind() {
    Given::<BankAccount>::events([Deposited { cents: 100 }, Withdrawn { cents: 40 }])
        .when(|account| account.withdraw(60))
        .then([Withdrawn { cents: 60 }])
        .then_state(BankAccount { balance: 0 });
    Given::<BankAccount>::nothing()
        .when(|account| account.withdraw(1))
        .then_err(InsufficientFunds { balance: 0 });
    Given::<BankAccount>::nothing()
        .when(|_| Ok::<_, String>(()))
        .then_nothing();
}

#[tokio::test]
async fn the_same_in_every_run() -> Result<(), Box<dyn std::error::Error>> {
    let clock = TestClock::from(Timestamp::from_micros(0));
    let accounts = testing::store(&clock).repository::<BankAccount>();
    accounts
        .execute("7f3", |account| account.deposit(100))
        .await?;
    clock.advance(3600);
    accounts
        .execute("7f3", |account| account.withdraw(30))
        .await?;
    let an_hour_ago = Timestamp::from_micros(0);
    assert_eq!(
        accounts.load_at("7f3", an_hour_ago).await?.state().balance,
        100
    );
    Ok(())
}
