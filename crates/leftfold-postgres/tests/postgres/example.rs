//! The example that writes its own table, run on a real server.
//!
//! **Owns:** that run. **Does not know:** what the example does; it asks the database.

use leftfold_postgres::PostgresStore;

use crate::{
    fixtures::types,
    server::{fresh, server},
};

#[path = "../../examples/own_table.rs"]
#[expect(dead_code, reason = "the example has a main of its own")]
mod own_table;

#[tokio::test]
async fn the_example_writes_a_row_and_an_event_or_neither() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let number = own_table::place_order(&store, "ann", 3).await.unwrap();
    // The table refuses this one, and with the row goes the event.
    own_table::place_order(&store, "bob", 0).await.unwrap_err();
    assert_eq!(types(&store).await, ["OrderPlaced"]);
    let row = format!("select customer from orders where number = {number}");
    assert_eq!(server().psql("postgres", &row).trim(), "ann");
}
