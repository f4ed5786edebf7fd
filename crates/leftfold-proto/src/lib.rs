//! The wire contracts of Leftfold's server and client.
//!
//! **Owns:** the `.proto` files and the code generated from them. **Does not know:** what messages mean.
//! **Invariants:** names and numbers are those that existing clients use; comments and everything else are our own.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::all,
    reason = "generated"
)]

mod codec;

/// The first protocol of KurrentDB's clients.
pub mod event_store {
    /// Shared values.
    pub mod client {
        tonic::include_proto!("event_store.client");
        /// Reading, appending, deleting.
        pub mod streams {
            tonic::include_proto!("event_store.client.streams");
        }
        /// What the server offers.
        pub mod server_features {
            tonic::include_proto!("event_store.client.server_features");
        }
        /// Who belongs to the cluster.
        pub mod gossip {
            tonic::include_proto!("event_store.client.gossip");
        }
        /// Figures.
        pub mod monitoring {
            tonic::include_proto!("event_store.client.monitoring");
        }
        /// Who may use the server.
        pub mod users {
            tonic::include_proto!("event_store.client.users");
        }
        /// Groups of competing consumers.
        pub mod persistent_subscriptions {
            tonic::include_proto!("event_store.client.persistent_subscriptions");
        }
        /// Projections.
        pub mod projections {
            tonic::include_proto!("event_store.client.projections");
        }
        /// What operators do.
        pub mod operations {
            tonic::include_proto!("event_store.client.operations");
        }
    }
}

/// The second protocol of KurrentDB's clients.
pub mod kurrentdb {
    /// Its only namespace.
    pub mod protocol {
        /// Version 2.
        pub mod v2 {
            /// Appends to several streams.
            pub mod streams {
                tonic::include_proto!("kurrentdb.protocol.v2.streams");
                /// Details of errors.
                pub mod errors {
                    tonic::include_proto!("kurrentdb.protocol.v2.streams.errors");
                }
            }
        }
    }
}

/// Errors as messages.
pub mod google {
    /// Errors as messages.
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// Leftfold's own protocol.
pub mod leftfold {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("leftfold.v1");
    }
}

/// The protocol of UmaDB's clients.
pub mod umadb {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("umadb.v1");
    }
}

pub use prost;
pub use prost_types;
