//! Two banks in one store: the chapter on tenants.

use futures_util::TryStreamExt;
use leftfold::{Store, stores::ListStreams};

use crate::account::{AccountEvent, BankAccount};

#[tokio::test]
async fn two_banks_have_one_store_and_nothing_in_common() -> Result<(), Box<dyn std::error::Error>>
{
    let store = Store::memory();
    let (north, south) = (store.tenant("north-bank")?, store.tenant("south-bank")?);

    for (bank, cents) in [(&north, 100), (&south, 250)] {
        let accounts = bank
            .repository::<BankAccount>()
            .with_idempotency_key("deposit", "request-1");
        let done = accounts.execute("7f3", |a| a.deposit(cents)).await?;
        assert!(!done.repeated);
        assert_eq!(accounts.load("7f3").await?.state().balance, cents);
    }
    assert_eq!(north.events::<AccountEvent>().collect().await?.len(), 1);

    let streams = store.event_store().streams(ListStreams::default());
    let stored = streams.try_concat().await?;
    assert_eq!(stored[0].stream.as_str(), "@north%2Dbank/account-7f3");
    assert_eq!(store.events::<AccountEvent>().collect().await?.len(), 2);
    Ok(())
}
