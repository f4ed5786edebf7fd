//! TLS as other programs see it: OpenSSL, and gRPC clients.

use std::{process::Stdio, sync::Arc};

use leftfold_proto::leftfold::v1::{HeadRequest, store_client::StoreClient};
use leftfold_server::{BindError, ReloadHandle, Server, Settings};
use leftfold_store::{EventStore, MemoryStore};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    sync::oneshot,
};
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::certificates::Authority;

/// A server that speaks TLS.
pub(crate) struct TlsTestServer {
    pub(crate) port: u16,
    pub(crate) reload: ReloadHandle,
    pub(crate) first_password: Option<String>,
    _stop: oneshot::Sender<()>,
}

impl TlsTestServer {
    pub(crate) async fn start(
        store: Arc<dyn EventStore>,
        authority: &Authority,
        given: &[(&str, &str)],
    ) -> Self {
        let mut settings = Settings::default();
        settings.set("listen", "127.0.0.1:0").unwrap();
        settings
            .set("tls_certificate_file", &authority.setting("server.crt"))
            .unwrap();
        settings
            .set("tls_key_file", &authority.setting("server.key"))
            .unwrap();
        for (name, value) in given {
            settings.set(name, value).unwrap();
        }
        let server = Server::bind(store, settings).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let started = Self {
            port: server.address().port(),
            reload: server.reload_handle(),
            first_password: server.first_password().map(str::to_owned),
            _stop: stop,
        };
        tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        started
    }

    /// A connection of a client that trusts an authority, and shows a certificate of it if it is named.
    pub(crate) async fn connect(
        &self,
        authority: &Authority,
        identity: Option<&str>,
    ) -> Result<Channel, tonic::transport::Error> {
        let read = |file: &str| std::fs::read_to_string(authority.path(file)).unwrap();
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.crt")));
        if let Some(name) = identity {
            let (certificate, key) = (read(&format!("{name}.crt")), read(&format!("{name}.key")));
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://localhost:{}", self.port)).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await
    }

    /// What `openssl s_client` says with these flags.
    async fn openssl(&self, flags: &[&str]) -> String {
        let mut command = Command::new("openssl");
        command.args([
            "s_client",
            "-connect",
            &format!("127.0.0.1:{}", self.port),
            "-servername",
            "localhost",
        ]);
        command.args(flags).stdin(Stdio::null());
        let ran = command.output().await.unwrap();
        String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
    }
}

fn server_authority() -> Authority {
    let authority = Authority::new();
    authority.issue("server", "leftfold");
    authority
}

fn memory() -> Arc<dyn EventStore> {
    Arc::new(MemoryStore::new())
}

#[tokio::test]
async fn openssl_gets_tls_1_2_and_1_3_and_nothing_older() {
    let authority = server_authority();
    let server = TlsTestServer::start(memory(), &authority, &[]).await;
    let ca = authority.setting("ca.crt");
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = server
            .openssl(&[
                flag,
                "-CAfile",
                &ca,
                "-verify_return_error",
                "-alpn",
                "h2,http/1.1",
            ])
            .await;
        assert!(
            said.contains("Verify return code: 0 (ok)") || said.contains("Verification: OK"),
            "{said}"
        );
        assert!(said.contains(version), "{said}");
        assert!(said.contains("ALPN protocol: h2"), "{said}");
    }
    for flag in ["-tls1", "-tls1_1"] {
        // The level allows the old version at the client, so that the server alone refuses it.
        let said = server.openssl(&[flag, "-cipher", "ALL:@SECLEVEL=0"]).await;
        assert!(
            said.contains("Cipher is (NONE)") && !said.contains("BEGIN CERTIFICATE"),
            "{said}"
        );
    }
    let weak = server
        .openssl(&["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"])
        .await;
    assert!(weak.contains("Cipher is (NONE)"), "{weak}");
}

#[tokio::test]
async fn an_authority_that_did_not_issue_the_certificate_is_not_enough() {
    let (authority, other) = (server_authority(), Authority::new());
    let server = TlsTestServer::start(memory(), &authority, &[]).await;
    server.connect(&authority, None).await.unwrap();
    server.connect(&other, None).await.unwrap_err();
}

#[tokio::test]
async fn certificates_are_replaced_while_the_server_runs_and_bad_ones_are_not_taken() {
    let (authority, next) = (server_authority(), server_authority());
    let server = TlsTestServer::start(memory(), &authority, &[]).await;
    let open = server.connect(&authority, None).await.unwrap();
    std::fs::write(authority.path("server.crt"), "no certificate").unwrap();
    server.reload.reload();
    server.connect(&authority, None).await.unwrap();
    // A certificate whose key is not there yet.
    std::fs::copy(next.path("server.crt"), authority.path("server.crt")).unwrap();
    server.reload.reload();
    server.connect(&authority, None).await.unwrap();
    std::fs::copy(next.path("server.key"), authority.path("server.key")).unwrap();
    server.reload.reload();
    server.connect(&authority, None).await.unwrap_err();
    server.connect(&next, None).await.unwrap();
    // What was open stays open.
    let asked = StoreClient::new(open)
        .head(HeadRequest {})
        .await
        .unwrap_err();
    assert_eq!(asked.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn client_certificates_of_the_authority_are_users_and_others_are_nobody() {
    let authority = server_authority();
    authority.issue("admin", "admin");
    authority.issue("stranger", "stranger");
    authority.issue_until("old", "admin", 2000);
    let clients = [("tls_client_ca_file", authority.setting("ca.crt"))];
    let given: Vec<_> = clients
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let server = TlsTestServer::start(memory(), &authority, &given).await;
    let head = async |identity: Option<&str>| {
        let channel = server
            .connect(&authority, identity)
            .await
            .map_err(|_| None)?;
        let asked = StoreClient::new(channel).head(HeadRequest {}).await;
        asked.map(drop).map_err(|status| Some(status.code()))
    };
    assert_eq!(head(Some("admin")).await, Ok(()));
    assert_eq!(
        head(Some("stranger")).await,
        Err(Some(Code::Unauthenticated))
    );
    assert_eq!(head(None).await, Err(Some(Code::Unauthenticated)));
    assert!(head(Some("old")).await.is_err(), "it has expired");
    let other = Authority::new();
    other.issue("admin", "admin");
    std::fs::copy(authority.path("ca.crt"), other.path("ca.crt")).unwrap();
    let refused = match server.connect(&other, Some("admin")).await {
        Err(_) => true,
        Ok(channel) => StoreClient::new(channel)
            .head(HeadRequest {})
            .await
            .is_err(),
    };
    assert!(refused, "another authority issued it");
    let required = [given[0], ("tls_client_certificate_required", "true")];
    let server = TlsTestServer::start(memory(), &authority, &required).await;
    let without = match server.connect(&authority, None).await {
        Err(_) => true,
        Ok(channel) => {
            let asked = StoreClient::new(channel).head(HeadRequest {}).await;
            asked.is_err_and(|status| status.code() != Code::Unauthenticated)
        }
    };
    assert!(without, "the handshake fails");
}

#[tokio::test]
async fn plain_text_is_taken_from_this_machine_by_its_loopback_address() {
    let authority = server_authority();
    let server = TlsTestServer::start(memory(), &authority, &[]).await;
    let mut socket = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .unwrap();
    socket
        .write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn http_1_is_served_over_tls_too() {
    let authority = server_authority();
    let server = TlsTestServer::start(memory(), &authority, &[]).await;
    let url = format!("https://localhost:{}/health/live", server.port);
    let ran = Command::new("curl")
        .args([
            "--silent",
            "--http1.1",
            "--cacert",
            &authority.setting("ca.crt"),
            "--write-out",
            "%{http_code} %{http_version}",
        ])
        .args([
            "--resolve",
            &format!("localhost:{}:127.0.0.1", server.port),
            "--output",
            "/dev/null",
            &url,
        ])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "200 1.1", "{ran:?}");
}

async fn refused(given: &[(&str, &str)]) -> BindError {
    let mut settings = Settings::default();
    for (name, value) in given {
        settings.set(name, value).unwrap();
    }
    Server::bind(memory(), settings).await.unwrap_err()
}

#[tokio::test]
async fn an_exposed_address_needs_tls_and_users() {
    let authority = server_authority();
    let (certificate, key) = (
        authority.setting("server.crt"),
        authority.setting("server.key"),
    );
    let tls = [
        ("tls_certificate_file", certificate.as_str()),
        ("tls_key_file", key.as_str()),
    ];
    let plain = refused(&[("listen", "0.0.0.0:0")]).await;
    assert!(matches!(plain, BindError::Exposed { .. }), "{plain}");
    let users_alone = refused(&[("listen", "0.0.0.0:0"), ("authentication", "on")]).await;
    assert!(
        matches!(users_alone, BindError::Exposed { .. }),
        "{users_alone}"
    );
    let tls_alone = refused(&[
        ("listen", "0.0.0.0:0"),
        ("authentication", "off"),
        tls[0],
        tls[1],
    ])
    .await;
    assert!(
        matches!(tls_alone, BindError::Unauthenticated { .. }),
        "{tls_alone}"
    );
    let mut settings = Settings::default();
    for (name, value) in [("listen", "0.0.0.0:0"), tls[0], tls[1]] {
        settings.set(name, value).unwrap();
    }
    Server::bind(memory(), settings).await.unwrap();
}

#[tokio::test]
async fn settings_of_tls_that_cannot_work_end_the_start_with_their_names() {
    let authority = server_authority();
    let (certificate, key, nowhere) = (
        authority.setting("server.crt"),
        authority.setting("server.key"),
        authority.setting("nowhere"),
    );
    for (given, named) in [
        (
            vec![("tls_certificate_file", certificate.as_str())],
            "tls_key_file",
        ),
        (vec![("tls_key_file", key.as_str())], "tls_certificate_file"),
        (
            vec![("tls_client_certificate_required", "true")],
            "tls_client_ca_file",
        ),
        (
            vec![
                ("tls_certificate_file", nowhere.as_str()),
                ("tls_key_file", key.as_str()),
            ],
            "nowhere",
        ),
        (
            vec![
                ("tls_certificate_file", key.as_str()),
                ("tls_key_file", key.as_str()),
            ],
            "tls_certificate_file",
        ),
        (
            vec![
                ("tls_certificate_file", certificate.as_str()),
                ("tls_key_file", certificate.as_str()),
            ],
            "tls_key_file",
        ),
    ] {
        let said = refused(&given).await.to_string();
        assert!(said.contains(named), "{said}");
    }
}
