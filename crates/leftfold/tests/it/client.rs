//! The framework over a server.
//!
//! **Owns:** the bank account behind a wire. **Does not know:** the client; it has tests of its own.

use std::{pin::Pin, sync::Arc};

use leftfold::{ExecuteError, Store, stores::MemoryStore};
use leftfold_server::{Server, Settings};

use crate::{
    account::{BankAccount, InsufficientFunds},
    listening::a_listener_parks_resumes_and_goes_on_where_it_was,
};

/// The address of a server over a new store in memory.
pub(crate) async fn server() -> String {
    let mut settings = Settings::default();
    settings.set("listen", "127.0.0.1:0").unwrap();
    let server = Server::bind(Arc::new(MemoryStore::new()), settings)
        .await
        .unwrap();
    let address = format!("leftfold://{}", server.address());
    tokio::spawn(server.run(std::future::pending()));
    address
}

#[tokio::test]
async fn the_account_of_a_server_is_the_same_for_all_its_clients() {
    let address = server().await;
    let store = Store::connect(&address).await.unwrap();
    let accounts = store.repository::<BankAccount>();
    // Enough for a snapshot, which is kept on the server too.
    for _ in 0..7 {
        accounts
            .execute("7f3", |account| account.deposit(10))
            .await
            .unwrap();
    }
    accounts
        .execute("7f3", |account| account.withdraw(30))
        .await
        .unwrap();
    let refused = accounts
        .execute("7f3", |account| account.withdraw(1_000))
        .await
        .unwrap_err();
    let expected = InsufficientFunds {
        balance: 40,
        requested: 1_000,
    };
    assert!(matches!(&refused, ExecuteError::Rejected(why) if *why == expected));
    store.close().await.unwrap();
    let another = Store::connect(&address).await.unwrap();
    let loaded = another.repository::<BankAccount>().load("7f3").await;
    assert_eq!(loaded.unwrap().state().balance, 40);
}

#[tokio::test]
async fn clients_that_contend_for_an_account_all_come_through() {
    let address = server().await;
    let mut depositors = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = Store::connect(&address).await.unwrap();
        depositors.spawn(async move {
            let accounts = store.repository::<BankAccount>().with_attempts(1_000);
            for _ in 0..10 {
                accounts
                    .execute("7f3", |account| account.deposit(1))
                    .await
                    .unwrap();
            }
        });
    }
    depositors.join_all().await;
    let store = Store::connect(&address).await.unwrap();
    let loaded = store.repository::<BankAccount>().load("7f3").await;
    assert_eq!(loaded.unwrap().state().balance, 40);
}

#[tokio::test]
async fn a_listener_works_over_the_wire_as_on_every_store() {
    let address = server().await;
    let open = || -> Pin<Box<dyn Future<Output = Store>>> {
        let address = address.clone();
        Box::pin(async move { Store::connect(&address).await.unwrap() })
    };
    a_listener_parks_resumes_and_goes_on_where_it_was(&open).await;
}

#[tokio::test]
async fn an_address_of_another_kind_is_refused_by_name() {
    let refused = Store::connect("http://localhost:2113").await.unwrap_err();
    assert!(refused.to_string().contains("leftfold://"), "{refused}");
}
