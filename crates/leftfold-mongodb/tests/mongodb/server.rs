//! One server for all tests of this program.

use std::sync::OnceLock;

use leftfold_mongodb::{MongoOptions, testing::Server};

/// Returns options for a store of its own.
pub(crate) fn fresh() -> MongoOptions {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start).fresh()
}
