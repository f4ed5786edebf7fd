//! The framework within tenants of one store.

use std::sync::{Arc, Mutex};

use leftfold::{HandlerError, Listener, Recorded, Store};

use crate::account::{AccountEvent, BankAccount};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_two_tenants_on_accounts_of_one_name_never_share_a_state() {
    let store = Store::memory();
    let mut commands = tokio::task::JoinSet::new();
    for nth in 0..60 {
        // Made anew for each command, as for each request.
        let (name, amount) = if nth % 2 == 0 {
            ("a", 1)
        } else {
            ("a/", 1_000)
        };
        let tenant = store.tenant(name).unwrap();
        commands.spawn(async move {
            let accounts = tenant.repository::<BankAccount>().with_attempts(100);
            accounts
                .execute("7f3", |account| account.deposit(amount))
                .await
                .unwrap();
        });
    }
    commands.join_all().await;
    for (name, balance) in [("a", 30), ("a/", 30_000)] {
        let tenant = store.tenant(name).unwrap();
        let loaded = tenant
            .repository::<BankAccount>()
            .load("7f3")
            .await
            .unwrap();
        assert_eq!(loaded.state().balance, balance, "{name}");
        assert_eq!(loaded.event_count(), 30, "{name}");
    }
}

#[tokio::test]
async fn an_append_prepared_for_a_tenant_can_be_appended_to_the_store_that_tenants_share() {
    let store = Store::memory();
    let acme = store.tenant("acme").unwrap();
    let north = acme.tenant("north").unwrap();
    for tenant in [&acme, &north] {
        let accounts = tenant.repository::<BankAccount>();
        let append = accounts
            .prepare("7f3", |account| account.deposit(5))
            .await
            .unwrap();
        store.event_store().append(append.unwrap()).await.unwrap();
        assert_eq!(accounts.load("7f3").await.unwrap().state().balance, 5);
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u64>>>);

impl Listener for Heard {
    type Event = AccountEvent;
    const NAME: &'static str = "heard";

    async fn on(&self, event: &Recorded<AccountEvent>) -> Result<(), HandlerError> {
        if let AccountEvent::DepositMade { amount } = event.event {
            self.0.lock().unwrap().push(amount);
        }
        Ok(())
    }
}

#[tokio::test]
async fn listeners_of_one_name_in_two_tenants_each_get_the_events_of_their_own() {
    let store = Store::memory();
    for (name, amount) in [("acme", 1), ("acme1", 2)] {
        let tenant = store.tenant(name).unwrap();
        let accounts = tenant.repository::<BankAccount>();
        let heard = Heard::default();
        let handle = tenant.follow(heard.clone()).spawn();
        let done = accounts
            .execute("7f3", |account| account.deposit(amount))
            .await
            .unwrap();
        handle.wait_for(done.position.unwrap()).await.unwrap();
        handle.stop().await.unwrap();
        assert_eq!(*heard.0.lock().unwrap(), [amount]);
    }
}

#[test]
fn names_of_tenants_that_are_empty_or_too_long_are_refused() {
    let store = Store::memory();
    let text = store.tenant("").unwrap_err().to_string();
    assert!(
        text.contains("0 bytes") && text.contains("expected 1 to 64"),
        "{text}"
    );
    assert!(store.tenant(&"\u{e9}".repeat(10)).is_ok());
    assert!(store.tenant(&"\u{e9}".repeat(11)).is_err());
}
