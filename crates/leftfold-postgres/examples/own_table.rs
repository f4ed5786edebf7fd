//! An application's own table and its events in one transaction.
//!
//! `cargo run -p leftfold-postgres --example own_table -- postgres://localhost/shop`

use std::{env, error::Error};

use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, StreamName};
use leftfold_postgres::PostgresStore;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).ok_or("give the address of a database")?;
    let store = PostgresStore::open(&address).await?;
    let number = place_order(&store, "ann", 3).await?;
    println!("order {number} and its event are stored");
    Ok(())
}

/// Writes a row of our own and the event that tells about it: both, or neither.
pub(crate) async fn place_order(
    store: &PostgresStore,
    customer: &str,
    quantity: i32,
) -> Result<i64, Box<dyn Error>> {
    let mut client = store.connection().await?;
    client
        .batch_execute(
            "create table if not exists orders \
             (number bigserial primary key, customer text not null, quantity int not null check (quantity > 0))",
        )
        .await?;

    let transaction = client.transaction().await?;
    let insert = "insert into orders (customer, quantity) values ($1, $2) returning number";
    let row = transaction
        .query_one(insert, &[&customer, &quantity])
        .await?;
    let number: i64 = row.get(0);

    let data = format!(r#"{{"customer":"{customer}","quantity":{quantity}}}"#);
    let placed = NewEvent::json(EventType::new("OrderPlaced")?, data);
    let stream = StreamName::new(format!("order-{number}"))?;
    let append = Append::to(stream, ExpectedRevision::NoStream, vec![placed])?;
    // The lock of appends is taken here and held to the commit: append last, commit at once.
    store.append_in(&transaction, append).await?;
    transaction.commit().await?;
    Ok(number)
}
