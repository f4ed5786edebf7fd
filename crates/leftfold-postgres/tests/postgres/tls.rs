//! Encrypted connections: to the right server, and to no other.
//!
//! **Owns:** a server with a certificate of its own. **Does not know:** appends.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown},
};

use leftfold_model::ExpectedRevision::Any;
use leftfold_postgres::{OpenError, PostgresStore, testing::Server};
use leftfold_store::EventStore;

use crate::fixtures::to;

#[tokio::test]
async fn a_connection_is_encrypted_and_the_servers_name_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let made =
        rcgen::generate_simple_self_signed(["db.internal".to_owned(), "127.0.0.1".to_owned()])
            .unwrap();
    let (certificate, key) = (
        directory.path().join("server.pem"),
        directory.path().join("server.key"),
    );
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((user, group)) = Server::user() {
        chown(&key, Some(user), Some(group)).unwrap();
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'",
        certificate.display(),
        key.display()
    );
    let server = Server::start_at(port, &settings);
    let trusted = format!("sslmode=verify-full&sslrootcert={}", certificate.display());
    let address =
        |host: &str, words: &str| format!("postgres://leftfold@{host}:{port}/postgres?{words}");

    let store = PostgresStore::open(&address("127.0.0.1", &trusted))
        .await
        .unwrap();
    store.append(to("a", Any, "Written")).await.unwrap();
    let client = store.connection().await.unwrap();
    let row = client
        .query_one(
            "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
            &[],
        )
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0));

    // The certificate has no trusted issuer, or is for another name: no connection, and nothing is sent unencrypted.
    for words in ["sslmode=require".to_owned(), trusted.clone()] {
        let host = if words == trusted {
            "localhost"
        } else {
            "127.0.0.1"
        };
        let refused = PostgresStore::open(&address(host, &words))
            .await
            .unwrap_err();
        assert!(matches!(refused, OpenError::Connect { .. }), "{refused}");
    }
    drop(server);
}
