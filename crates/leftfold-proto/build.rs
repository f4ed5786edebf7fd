//! Compiles the wire contracts.
//!
//! **Owns:** the list of files and how their types look in Rust. **Does not know:** who speaks them.
//! **Invariants:** no compiler outside of cargo is needed.

use std::error::Error;

const FILES: &[&str] = &[
    "event_store/client/gossip.proto",
    "event_store/client/monitoring.proto",
    "event_store/client/operations.proto",
    "event_store/client/persistent.proto",
    "event_store/client/projections.proto",
    "event_store/client/server_features.proto",
    "event_store/client/shared.proto",
    "event_store/client/streams.proto",
    "event_store/client/users.proto",
    "google/rpc/status.proto",
    "kurrentdb/protocol/v2/errors.proto",
    "kurrentdb/protocol/v2/streams.proto",
    "leftfold/v1/access.proto",
    "leftfold/v1/store.proto",
    "umadb/v1/umadb.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    // Details of errors carry the name of their type.
    let mut names = tonic_prost_build::Config::new();
    names.enable_type_names();
    tonic_prost_build::configure()
        // Event data is shared, not copied.
        .bytes(".")
        .codec_path("crate::codec::MessageCodec")
        .build_client(true)
        .build_server(true)
        .compile_fds_with_config(files, names)?;
    Ok(())
}
