//! The framework over MongoDB.
//!
//! **Owns:** running the example's bank there. **Does not know:** the store; it has tests of its own.

use std::pin::Pin;

use leftfold::Store;
use leftfold_mongodb::testing::Server;

use crate::listening::a_listener_parks_resumes_and_goes_on_where_it_was;

#[path = "../../examples/bank_account_mongodb.rs"]
#[expect(dead_code, reason = "the example has a main of its own")]
mod example;

const MEMORY: &str = include_str!("../../examples/bank_account.rs");
const MONGODB: &str = include_str!("../../examples/bank_account_mongodb.rs");

#[tokio::test]
async fn the_example_runs_on_mongodb_and_goes_on_where_it_was() {
    let server = Server::start();
    let address = server.database();
    for balance in [70, 140] {
        let store = Store::mongodb(&address).await.unwrap();
        assert_eq!(example::run(&store).await.unwrap(), balance);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_listener_works_on_mongodb_as_on_every_store() {
    let server = Server::start();
    let address = server.database();
    let open = || -> Pin<Box<dyn Future<Output = Store>>> {
        let address = address.clone();
        Box::pin(async move { Store::mongodb(&address).await.unwrap() })
    };
    a_listener_parks_resumes_and_goes_on_where_it_was(&open).await;
}

#[test]
fn the_example_differs_from_the_one_in_memory_by_one_line() {
    let code = |text: &'static str| text.lines().filter(|line| !line.starts_with("//!"));
    assert_eq!(code(MEMORY).count(), code(MONGODB).count());
    let different = code(MEMORY).zip(code(MONGODB)).filter(|(a, b)| a != b);
    assert_eq!(different.count(), 1);
}
