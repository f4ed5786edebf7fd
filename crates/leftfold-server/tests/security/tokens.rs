//! Users who come by tokens of an issuer: their keys, their rights, and their end.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, http::StatusCode, response::Redirect, routing::get};
use leftfold_model::{ExpectedRevision, StreamName};
use leftfold_proto::leftfold::v1::{
    HeadRequest, ReadRequest, Scope, StatsRequest, SubscribeRequest, scope,
    store_client::StoreClient,
};
use leftfold_server::{BindError, Server, Settings, access::AccessAdmin};
use leftfold_store::{EventStore, MemoryStore, StreamMetadata};
use ring::{
    rand::SystemRandom,
    signature::{
        Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
        RsaPublicKeyComponents,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command};
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    issuer::{AUDIENCE, ISSUER, TestIssuer, claims, encoded, seconds_from_now, signed, with},
    test_server::TestServer,
};

/// A request with a token.
fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

async fn head(channel: &Channel, token: &str) -> Result<(), Status> {
    let mut client = StoreClient::new(channel.clone());
    client.head(by(token, HeadRequest {})).await.map(drop)
}

/// A server that takes the tokens of an issuer, whose keys are in a file.
async fn server(
    store: Arc<dyn EventStore>,
    keys: &str,
    given: &[(&str, &str)],
) -> (TestServer, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    std::fs::write(&file, keys).unwrap();
    let mut settings = vec![
        ("authentication", "on"),
        ("jwt_issuer", ISSUER),
        ("jwt_audience", AUDIENCE),
        ("jwt_keys_file", file.to_str().unwrap()),
    ];
    settings.extend(given);
    (TestServer::new(store, &settings).await, directory)
}

/// A stream that the group `keepers` alone may read.
async fn kept_stream(store: &Arc<dyn EventStore>) {
    let acl = json!({"$r": "keepers", "$w": "keepers"});
    let metadata = StreamMetadata::default().with_property("$acl", acl);
    let stream = StreamName::new("vault-1").unwrap();
    let append = metadata.append_for(&stream, ExpectedRevision::Any);
    store.append(append.unwrap()).await.unwrap();
}

async fn read_vault(channel: &Channel, token: &str) -> Result<(), Code> {
    let request = ReadRequest {
        scope: Some(vault()),
        ..ReadRequest::default()
    };
    let mut client = StoreClient::new(channel.clone());
    let read = client.read(by(token, request)).await;
    let mut batches = read.map_err(|status| status.code())?.into_inner();
    let next = batches.message().await;
    next.map(drop).map_err(|status| status.code())
}

fn vault() -> Scope {
    Scope {
        kind: Some(scope::Kind::Stream("vault-1".into())),
    }
}

#[tokio::test]
async fn a_token_has_the_rights_of_its_groups_and_no_more() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    kept_stream(&store).await;
    let issuer = TestIssuer::new("a");
    let names = [("jwt_group_names", "platform=$admins")];
    let (server, _keys) = server(store, &issuer.keys(), &names).await;
    let channel = server.connect().await;
    let token = |groups: &[&str]| issuer.token(&claims("tom", groups));
    assert_eq!(read_vault(&channel, &token(&["keepers"])).await, Ok(()));
    let denied = read_vault(&channel, &token(&["shop"])).await;
    assert_eq!(denied, Err(Code::PermissionDenied));
    let stats = async |token: String| {
        let mut client = StoreClient::new(channel.clone());
        let asked = client.stats(by(&token, StatsRequest {})).await;
        asked.map(drop).map_err(|status| status.code())
    };
    assert_eq!(stats(token(&["platform"])).await, Ok(()));
    let claimed = stats(token(&["$admins", "$ops"])).await;
    assert_eq!(
        claimed,
        Err(Code::PermissionDenied),
        "the issuer says so alone"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_ends_with_its_token() {
    let issuer = TestIssuer::new("a");
    let skew = [("jwt_clock_skew", "0s")];
    let (server, _keys) = server(Arc::new(MemoryStore::new()), &issuer.keys(), &skew).await;
    let channel = server.connect().await;
    let soon = [("exp", json!(seconds_from_now(2)))];
    let token = issuer.token(&with(claims("tom", &[]), &soon));
    let request = by(&token, SubscribeRequest::default());
    let subscribed = StoreClient::new(channel.clone()).subscribe(request).await;
    let mut deliveries = subscribed.unwrap().into_inner();
    let ended = loop {
        match deliveries.message().await {
            Ok(delivery) => assert!(delivery.is_some(), "it ends with a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
    let again = head(&channel, &token).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated);
    assert!(again.message().contains("expired"), "{again}");
    server.stop().await;
}

#[tokio::test]
async fn a_user_of_the_store_leaves_no_place_for_a_token_of_its_name() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let issuer = TestIssuer::new("a");
    let (server, _keys) = server(Arc::clone(&store), &issuer.keys(), &[]).await;
    let channel = server.connect().await;
    let token = issuer.token(&claims("bob", &[]));
    head(&channel, &token).await.unwrap();
    let request = by(&token, SubscribeRequest::default());
    let subscribed = StoreClient::new(channel.clone()).subscribe(request).await;
    let mut deliveries = subscribed.unwrap().into_inner();
    let admin = AccessAdmin::open(store).await.unwrap();
    admin
        .create_user("bob", "correct horse", "Bob", vec![])
        .await
        .unwrap();
    while deliveries.message().await.is_ok_and(|it| it.is_some()) {}
    let rejected = head(&channel, &token).await.unwrap_err();
    assert_eq!(rejected.code(), Code::Unauthenticated);
    assert!(rejected.message().contains("names a user"), "{rejected}");
    server.stop().await;
}

/// An RSA key that OpenSSL makes.
async fn rsa_key() -> RsaKeyPair {
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-outform", "DER"])
        .args(["-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .await
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    // Which of its two forms a key has depends on the version.
    let key = RsaKeyPair::from_pkcs8(&made.stdout);
    key.or_else(|_| RsaKeyPair::from_der(&made.stdout)).unwrap()
}

/// An issuer with a key of each family of algorithms.
struct Families {
    ec: TestIssuer,
    rsa: RsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Families {
    async fn new() -> Self {
        let ed = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self {
            ec: TestIssuer::new("ec"),
            rsa: rsa_key().await,
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
        }
    }

    /// Their public keys, and a symmetric one that does not belong there.
    fn keys(&self) -> String {
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let (modulus, exponent) = (encoded(&public.n), encoded(&public.e));
        let x = encoded(self.ed.public_key().as_ref());
        let keys = json!({"keys": [
            self.ec.jwk(),
            {"kty": "RSA", "kid": "rsa", "n": modulus, "e": exponent},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x},
            {"kty": "oct", "kid": "secret", "k": encoded(b"a secret that all know")},
        ]});
        keys.to_string()
    }

    /// A token whose header names an algorithm, by the RSA key and perhaps another algorithm.
    fn by_rsa(&self, name: &str, algorithm: &'static dyn RsaEncoding, claims: &Value) -> String {
        let header = json!({"alg": name, "kid": "rsa", "typ": "at+jwt"});
        signed(&header, claims, |message| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            let random = SystemRandom::new();
            let signing = self.rsa.sign(algorithm, &random, message, &mut signature);
            signing.unwrap();
            signature
        })
    }

    fn by_ed25519(&self, claims: &Value) -> String {
        signed(&json!({"alg": "EdDSA", "kid": "ed"}), claims, |message| {
            self.ed.sign(message).as_ref().to_vec()
        })
    }
}

#[tokio::test]
async fn tokens_by_every_family_of_algorithms_are_taken() {
    let families = Families::new().await;
    let (server, _keys) = server(Arc::new(MemoryStore::new()), &families.keys(), &[]).await;
    let channel = server.connect().await;
    let right = claims("tom", &[]);
    for token in [
        families.by_rsa("RS256", &RSA_PKCS1_SHA256, &right),
        families.by_rsa("PS512", &RSA_PSS_SHA512, &right),
        families.by_ed25519(&right),
        families.ec.token(&right),
        // One key verifies by its algorithm, so the token need not name it.
        families.ec.token_with(&json!({"alg": "ES256"}), &right),
    ] {
        head(&channel, &token).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn no_token_is_taken_by_the_key_of_another_or_with_what_is_not_understood() {
    let families = Families::new().await;
    let (server, _keys) = server(Arc::new(MemoryStore::new()), &families.keys(), &[]).await;
    let channel = server.connect().await;
    let right = claims("tom", &[]);
    let by_ec = |header: Value| families.ec.token_with(&header, &right);
    let but = |name: &str, value: Value| families.ec.token(&with(right.clone(), &[(name, value)]));
    for (wrong, reason) in [
        (
            families.by_rsa("RS256", &RSA_PSS_SHA512, &right),
            "signature wrong",
        ),
        (
            by_ec(json!({"alg": "RS256", "kid": "rsa"})),
            "signature wrong",
        ),
        (by_ec(json!({"alg": "ES256", "kid": "rsa"})), "algorithm"),
        // The symmetric key in the set is none of the keys, so no key has its id.
        (by_ec(json!({"alg": "HS256", "kid": "secret"})), "algorithm"),
        (
            by_ec(json!({"alg": "ES256", "kid": "secret"})),
            "does not list",
        ),
        (
            by_ec(json!({"alg": "ES256", "kid": "ec", "typ": "logout+jwt"})),
            "type",
        ),
        (
            by_ec(json!({"alg": "ES256", "kid": "ec", "crit": ["exp"]})),
            "not a signed",
        ),
        (but("exp", json!("soon")), "exp"),
        (but("nbf", json!("now")), "nbf"),
    ] {
        let rejected = head(&channel, &wrong).await.unwrap_err();
        assert_eq!(rejected.code(), Code::Unauthenticated, "{rejected}");
        assert!(rejected.message().contains(reason), "{reason}: {rejected}");
    }
    server.stop().await;
}

/// An issuer that answers over HTTP, and how often its keys were fetched.
async fn serve_issuer(keys: String, of_itself: Option<&str>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let description = json!({
        "issuer": of_itself.unwrap_or(&address),
        "jwks_uri": format!("{address}/keys"),
    });
    let fetched = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&fetched);
    let answer = move || {
        counts.fetch_add(1, Ordering::SeqCst);
        let keys = keys.clone();
        async move { keys }
    };
    let described = move || {
        let text = description.to_string();
        async move { text }
    };
    let routes = Router::new()
        .route("/keys", get(answer))
        .route("/moved", get(async || Redirect::temporary("/keys")))
        .route("/failing", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/.well-known/openid-configuration", get(described));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, fetched)
}

async fn server_of_issuer(issuer: &str, given: &[(&str, &str)]) -> TestServer {
    let mut settings = vec![
        ("authentication", "on"),
        ("jwt_issuer", issuer),
        ("jwt_audience", AUDIENCE),
    ];
    settings.extend(given);
    TestServer::new(Arc::new(MemoryStore::new()), &settings).await
}

#[tokio::test]
async fn keys_are_discovered_and_tokens_with_an_unknown_key_do_not_multiply_fetches() {
    let issuer = TestIssuer::new("a");
    let (address, fetched) = serve_issuer(issuer.keys(), None).await;
    let server = server_of_issuer(&address, &[]).await;
    let channel = server.connect().await;
    let claims = with(claims("tom", &[]), &[("iss", json!(address))]);
    head(&channel, &issuer.token(&claims)).await.unwrap();
    let other = TestIssuer::new("b");
    for _ in 0..5 {
        let rejected = head(&channel, &other.token(&claims)).await.unwrap_err();
        assert_eq!(rejected.code(), Code::Unauthenticated);
        assert!(rejected.message().contains("does not list"), "{rejected}");
    }
    assert_eq!(
        fetched.load(Ordering::SeqCst),
        1,
        "the keys were just fetched"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_has_no_keys_yet_does_not_call_tokens_wrong() {
    let issuer = TestIssuer::new("a");
    let (address, _) = serve_issuer(issuer.keys(), None).await;
    let (of_other, _) = serve_issuer(issuer.keys(), Some("https://other.example")).await;
    let (too_long, _) =
        serve_issuer(format!("{}{}", issuer.keys(), " ".repeat(1 << 20)), None).await;
    let (no_keys, _) = serve_issuer("{\"keys\": []}".to_owned(), None).await;
    let moved = format!("{address}/moved");
    let failing = format!("{address}/failing");
    for (issuer_address, given) in [
        (&of_other, vec![]),
        (&too_long, vec![]),
        (&no_keys, vec![]),
        (&address, vec![("jwt_keys_url", moved.as_str())]),
        (&address, vec![("jwt_keys_url", failing.as_str())]),
        (&"http://127.0.0.1:1".to_owned(), vec![]),
    ] {
        let server = server_of_issuer(issuer_address, &given).await;
        let channel = server.connect().await;
        let claims = with(claims("tom", &[]), &[("iss", json!(issuer_address))]);
        let waits = head(&channel, &issuer.token(&claims)).await.unwrap_err();
        assert_eq!(
            waits.code(),
            Code::Unavailable,
            "{issuer_address} {given:?}: {waits}"
        );
        server.stop().await;
    }
}

#[tokio::test]
async fn settings_of_tokens_that_cannot_work_end_the_start_with_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (keys, secret, nowhere) = (path("keys.json"), path("secret.json"), path("nowhere"));
    std::fs::write(&keys, TestIssuer::new("a").keys()).unwrap();
    std::fs::write(&secret, r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#).unwrap();
    let on = ("authentication", "on");
    let (issuer, audience) = (("jwt_issuer", ISSUER), ("jwt_audience", AUDIENCE));
    let file = ("jwt_keys_file", keys.as_str());
    for (given, named) in [
        (vec![on, issuer], "jwt_audience"),
        (vec![on, audience], "jwt_issuer"),
        (vec![on, file], "jwt_issuer"),
        (vec![issuer, audience, file], "authentication"),
        (
            vec![on, issuer, audience, file, ("jwt_keys_url", ISSUER)],
            "jwt_keys_url",
        ),
        (
            vec![on, ("jwt_issuer", "http://issuer.example"), audience],
            "jwt_issuer",
        ),
        (
            vec![on, issuer, audience, ("jwt_keys_url", "ftp://x")],
            "jwt_keys_url",
        ),
        (
            vec![on, issuer, audience, ("jwt_keys_file", &nowhere)],
            "nowhere",
        ),
        (
            vec![on, issuer, audience, ("jwt_keys_file", &secret)],
            "secret.json",
        ),
        (
            vec![on, issuer, audience, file, ("jwt_clock_skew", "1h")],
            "jwt_clock_skew",
        ),
    ] {
        let mut settings = Settings::default();
        for (name, value) in &given {
            settings.set(name, value).unwrap();
        }
        let store = Arc::new(MemoryStore::new());
        let refused = Server::bind(store, settings).await.unwrap_err();
        assert!(
            matches!(refused, BindError::Tokens(_)),
            "{given:?}: {refused}"
        );
        assert!(refused.to_string().contains(named), "{given:?}: {refused}");
    }
}
