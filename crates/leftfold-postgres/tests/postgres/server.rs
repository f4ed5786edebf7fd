//! One server for all tests that do not harm it, and a schema of its own for each store.
//!
//! **Owns:** that server. **Does not know:** what is tested.

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use leftfold_postgres::{PostgresOptions, testing::Server};

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);
static SCHEMAS: AtomicU32 = AtomicU32::new(0);

/// The server.
pub(crate) fn server() -> &'static Server {
    &SERVER
}

/// The name of a schema that no other test uses.
pub(crate) fn schema() -> String {
    format!("s{}", SCHEMAS.fetch_add(1, Ordering::Relaxed))
}

/// Options for a store of its own.
pub(crate) fn fresh() -> PostgresOptions {
    let options: PostgresOptions = SERVER.address("postgres").parse().unwrap();
    options.with_schema(schema()).with_connections(4)
}
