//! One server for all tests of this program.

use std::sync::OnceLock;

use leftfold_mongodb::{MongoOptions, testing::Server};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// Returns options for a store of its own.
pub(crate) fn fresh() -> MongoOptions {
    server().fresh()
}

/// Returns the address of the server, for other programs than the store.
pub(crate) fn address() -> String {
    server().database()
}
