//! Every method of every wire, with credentials that are missing, wrong, insufficient and right.
//!
//! **Owns:** a row for each method and address. **Does not know:** the rule in the table of methods.
//!
//! The rows stand here by hand; the methods come from the server's own table, so that one without a row fails.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Bytes, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use leftfold_store::{EventStore, MemoryStore};
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};
use tonic::Code;

use self::issuer::{TestIssuer, claims, seconds_from_now, with};
use crate::{Server, Settings, access::AccessAdmin, protocol::methods::SERVICES};

#[path = "../../tests/security/issuer.rs"]
mod issuer;
mod tokens;

/// Who may call a method at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Anyone,
    Known,
    Operators,
}

use Row::{Anyone, Known, Operators};

/// A service, and its methods by their rule.
type Service = (&'static str, &'static [(Row, &'static [&'static str])]);

const GRPC: &[Service] = &[
    (
        "event_store.client.streams.Streams",
        &[(
            Known,
            &["Read", "Append", "BatchAppend", "Delete", "Tombstone"],
        )],
    ),
    (
        "kurrentdb.protocol.v2.streams.StreamsService",
        &[(Known, &["AppendSession", "AppendRecords"])],
    ),
    ("event_store.client.gossip.Gossip", &[(Anyone, &["Read"])]),
    (
        "event_store.client.monitoring.Monitoring",
        &[(Operators, &["Stats"])],
    ),
    (
        "event_store.client.operations.Operations",
        &[(
            Operators,
            &[
                "StartScavenge",
                "StopScavenge",
                "Shutdown",
                "MergeIndexes",
                "ResignNode",
                "SetNodePriority",
                "RestartPersistentSubscriptions",
            ],
        )],
    ),
    (
        "event_store.client.server_features.ServerFeatures",
        &[(Anyone, &["GetSupportedMethods"])],
    ),
    (
        "event_store.client.users.Users",
        &[(
            Known,
            &[
                "Create",
                "Update",
                "Delete",
                "Disable",
                "Enable",
                "Details",
                "ChangePassword",
                "ResetPassword",
            ],
        )],
    ),
    (
        "event_store.client.persistent_subscriptions.PersistentSubscriptions",
        &[
            (Known, &["Read", "GetInfo", "List"]),
            (
                Operators,
                &[
                    "Create",
                    "Update",
                    "Delete",
                    "ReplayParked",
                    "RestartSubsystem",
                ],
            ),
        ],
    ),
    (
        "event_store.client.projections.Projections",
        &[
            (
                Known,
                &[
                    "Create",
                    "Update",
                    "Delete",
                    "Statistics",
                    "Disable",
                    "State",
                    "Result",
                ],
            ),
            (Operators, &["Enable", "Reset", "RestartSubsystem"]),
        ],
    ),
    ("umadb.v1.DCB", &[(Known, UMADB)]),
    ("umadb.UmaDBService", &[(Known, UMADB)]),
    (
        "leftfold.v1.Store",
        &[
            (
                Known,
                &[
                    "Describe",
                    "Append",
                    "AppendChunked",
                    "Appends",
                    "Read",
                    "Subscribe",
                    "Head",
                    "State",
                    "Delete",
                    "List",
                    "LoadSnapshot",
                    "SaveSnapshot",
                    "RemoveSnapshot",
                    "ClaimConsumer",
                    "RenewClaim",
                    "ReleaseClaim",
                    "AdvanceConsumer",
                    "DueTimers",
                    "ListParked",
                    "ResolveParked",
                    "GetConsumer",
                    "ListConsumers",
                    "ResetConsumer",
                    "RemoveConsumer",
                ],
            ),
            (Operators, &["Stats", "Scavenge"]),
        ],
    ),
    (
        "leftfold.v1.Access",
        &[(
            Known,
            &[
                "ListUsers",
                "CreateUser",
                "ChangeUser",
                "ListKeys",
                "CreateKey",
                "RevokeKey",
            ],
        )],
    ),
    ("grpc.health.v1.Health", &[(Anyone, &["Check", "Watch"])]),
];
const UMADB: &[&str] = &["Read", "Subscribe", "Append", "Head", "GetTrackingInfo"];

/// The rule of each address of HTTP that the description has, and of those that are in no description.
const HTTP: &[(Row, &str)] = &[
    (Known, "POST /api/v1/append"),
    (Known, "GET /api/v1/streams/{stream}/events"),
    (Known, "POST /api/v1/streams/{stream}/events"),
    (Known, "GET /api/v1/events"),
    (Known, "POST /api/v1/query"),
    (Known, "GET /api/v1/subscribe"),
    (Known, "POST /api/v1/tickets"),
    (Known, "GET /api/v1/streams"),
    (Known, "GET /api/v1/streams/{stream}"),
    (Known, "DELETE /api/v1/streams/{stream}"),
    (Known, "GET /api/v1/streams/{stream}/metadata"),
    (Known, "PUT /api/v1/streams/{stream}/metadata"),
    (Operators, "GET /api/v1/stats"),
    (Operators, "POST /api/v1/scavenge"),
    (Operators, "GET /api/v1/scavenge"),
    (Operators, "DELETE /api/v1/scavenge"),
    (Anyone, "GET /health/live"),
    (Anyone, "GET /health/ready"),
    (Known, "GET /info"),
    (Operators, "GET /metrics"),
    (Anyone, "GET /ping"),
    (Anyone, "GET /gossip"),
    (Known, "GET /api/v1/openapi.json"),
    (Known, "GET /api/v1/docs/"),
    (Known, "GET /api/v1/subscriptions"),
    (Known, "GET /api/v1/subscriptions/{stream}/{group}"),
    (Known, "POST /api/v1/subscriptions/{stream}/{group}"),
    (Known, "PUT /api/v1/subscriptions/{stream}/{group}"),
    (Known, "DELETE /api/v1/subscriptions/{stream}/{group}"),
    (Known, "GET /api/v1/subscriptions/{stream}/{group}/parked"),
    (
        Known,
        "DELETE /api/v1/subscriptions/{stream}/{group}/parked",
    ),
    (Known, "POST /api/v1/subscriptions/{stream}/{group}/replay"),
    (Known, "GET /api/v1/subscriptions/{stream}/{group}/events"),
    (Known, "POST /api/v1/consumers/{consumer}/ack"),
    (Known, "POST /api/v1/consumers/{consumer}/nack"),
    (Known, "GET /errors"),
    (Known, "GET /errors/{code}"),
    (Known, "GET /nowhere"),
];

/// A server with users and keys, and the credentials of some.
struct Guarded {
    address: SocketAddr,
    headers: BTreeMap<&'static str, Option<String>>,
    _stop: oneshot::Sender<()>,
    _served: JoinHandle<()>,
    _keys: tempfile::TempDir,
}

impl Guarded {
    async fn start() -> Self {
        let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
        let admin = AccessAdmin::open(Arc::clone(&store)).await.unwrap();
        admin
            .create_user("ann", "correct horse", "Ann", vec!["$admins".into()])
            .await
            .unwrap();
        let key = async |grant: &str, expires| {
            let grants = [grant.parse().unwrap()];
            admin.create_key("k", &grants, expires).await.unwrap()
        };
        let (narrow, all) = (
            key("read:prefix=nothing-", None).await,
            key("admin", None).await,
        );
        let expired = key("admin", Some(Timestamp::UNIX_EPOCH)).await;
        let revoked = key("admin", None).await;
        admin.revoke_key(&revoked.id).await.unwrap();
        let basic = |text: &str| Some(format!("Basic {}", STANDARD.encode(text)));
        let bearer = |key: &str| Some(format!("Bearer {key}"));
        let issuer = TestIssuer::new("a");
        let keys = tempfile::tempdir().unwrap();
        let keys_file = keys.path().join("keys.json");
        std::fs::write(&keys_file, issuer.keys()).unwrap();
        let mut headers = BTreeMap::from([
            ("none", None),
            ("malformed", Some("Digest x".to_owned())),
            ("wrong password", basic("ann:wrong horse")),
            ("unknown user", basic("dan:correct horse")),
            ("wrong key", bearer(&other_secret(&all.key))),
            ("expired", bearer(&expired.key)),
            ("revoked", bearer(&revoked.key)),
            ("insufficient", bearer(&narrow.key)),
            ("right user", basic("ann:correct horse")),
            ("right key", bearer(&all.key)),
            (
                "right key as a password",
                basic(&format!("key:{}", all.key)),
            ),
        ]);
        let tokens = tokens_of(&issuer);
        headers.insert(
            "right token as a password",
            basic(&format!("tom:{}", tokens[0].1)),
        );
        headers.extend(tokens.map(|(name, token)| (name, bearer(&token))));
        let settings = settings_with(keys_file.to_str().unwrap());
        let server = Server::bind(store, settings).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            server.run(stopped).await.unwrap();
        });
        Self {
            address,
            headers,
            _stop: stop,
            _served: served,
            _keys: keys,
        }
    }

    /// Sends what must be verified before so much is wrong that nothing of this address is verified.
    async fn verify_good_ones(&self, sender: &mut SendRequest<Full<Bytes>>) {
        for credentials in ["right user", "right token"] {
            let code = self.call(sender, "/leftfold.v1.Store/Head", credentials);
            assert_eq!(code.await, None, "{credentials}");
        }
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        // Else each message waits for the acknowledgement of the headers before it.
        socket.set_nodelay(true).unwrap();
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender
    }

    fn request(&self, method: Method, path: &str, credentials: &str) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        match &self.headers[credentials] {
            Some(value) => request.header("authorization", value),
            None => request,
        }
    }

    /// The code of a call with an empty message, if it ends before its first answer.
    async fn call(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        path: &str,
        credentials: &str,
    ) -> Option<Code> {
        let request = self.request(Method::POST, path, credentials);
        let request = request
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = request
            .body(Full::new(Bytes::from_static(&[0, 0, 0, 0, 0])))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let code = response.headers().get("grpc-status")?;
        Some(Code::from_bytes(code.as_bytes()))
    }
}

/// Settings of a server that takes tokens by the keys in a file.
fn settings_with(keys_file: &str) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in [
        ("listen", "127.0.0.1:0"),
        ("authentication", "on"),
        ("jwt_issuer", issuer::ISSUER),
        ("jwt_audience", issuer::AUDIENCE),
        ("jwt_keys_file", keys_file),
        ("jwt_group_names", "platform=$admins"),
    ] {
        settings.set(name, value).unwrap();
    }
    settings
}

/// The right token of an administrator, and tokens that are wrong in one way each.
fn tokens_of(issuer: &TestIssuer) -> [(&'static str, String); 9] {
    let right = claims("tom", &["platform"]);
    let but =
        |name: &str, value: serde_json::Value| issuer.token(&with(right.clone(), &[(name, value)]));
    let token = issuer.token(&right);
    let cut = token.rsplit_once('.').unwrap().0.to_owned();
    [
        ("right token", token),
        (
            "token of another issuer",
            but("iss", "https://other.example".into()),
        ),
        ("token for another audience", but("aud", "shop".into())),
        // Beyond the skew that clocks may have.
        ("expired token", but("exp", seconds_from_now(-3600).into())),
        (
            "token of the future",
            but("nbf", seconds_from_now(600).into()),
        ),
        ("token by another key", TestIssuer::new("a").token(&right)),
        ("token without signature", issuer.unsigned(&right)),
        (
            "token by HS256 with the public key",
            issuer.by_public_key(&right),
        ),
        ("token that is cut", cut),
    ]
}

/// The key with a secret that differs in its middle.
fn other_secret(key: &str) -> String {
    let at = key.len() - 10;
    let other = if &key[at..=at] == "x" { "y" } else { "x" };
    format!("{}{other}{}", &key[..at], &key[at + 1..])
}

const BAD: [&str; 15] = [
    "none",
    "malformed",
    "wrong password",
    "unknown user",
    "wrong key",
    "expired",
    "revoked",
    "token of another issuer",
    "token for another audience",
    "expired token",
    "token of the future",
    "token by another key",
    "token without signature",
    "token by HS256 with the public key",
    "token that is cut",
];
const GOOD: [&str; 5] = [
    "right user",
    "right key",
    "right key as a password",
    "right token",
    "right token as a password",
];

/// Wrong credentials are limited to so many for an address, so these are few; the limit has a test of its own.
fn is_rejected(code: Option<Code>) -> bool {
    matches!(code, Some(Code::Unauthenticated | Code::ResourceExhausted))
}

#[tokio::test]
async fn every_method_of_grpc_takes_the_credentials_that_its_row_says() {
    let server = Guarded::start().await;
    let mut sender = server.connect().await;
    server.verify_good_ones(&mut sender).await;
    let row = |service: &str, method: &str| {
        let (_, rows) = GRPC.iter().find(|(name, _)| *name == service)?;
        let (row, _) = rows.iter().find(|(_, methods)| methods.contains(&method))?;
        Some(*row)
    };
    for service in SERVICES {
        for method in service.methods {
            let row = row(service.name, method.name);
            let row = row.unwrap_or_else(|| panic!("{}/{} has no row", service.name, method.name));
            let path = format!("/{}/{}", service.name, method.name);
            for credentials in BAD {
                let code = server.call(&mut sender, &path, credentials).await;
                assert_eq!(
                    is_rejected(code),
                    row != Anyone,
                    "{path}, {credentials}: {code:?}"
                );
            }
            let code = server.call(&mut sender, &path, "insufficient").await;
            assert!(!is_rejected(code), "{path}: {code:?}");
            assert!(
                row != Operators || code == Some(Code::PermissionDenied),
                "{path}: {code:?}"
            );
            for credentials in GOOD {
                let code = server.call(&mut sender, &path, credentials).await;
                assert!(
                    !is_rejected(code) && code != Some(Code::PermissionDenied)
                        || path.ends_with("ChangePassword"),
                    "{path}, {credentials}: {code:?}"
                );
            }
        }
    }
    let nowhere = server.call(&mut sender, "/no.Service/Method", "none").await;
    assert_eq!(
        nowhere,
        Some(Code::Unauthenticated),
        "what there is, is told to those who may ask"
    );
}

#[tokio::test]
async fn every_address_of_http_takes_the_credentials_that_its_row_says() {
    let server = Guarded::start().await;
    let mut sender = server.connect().await;
    server.verify_good_ones(&mut sender).await;
    let get = server.request(Method::GET, "/api/v1/openapi.json", "right user");
    let response = sender
        .send_request(get.body(Full::default()).unwrap())
        .await
        .unwrap();
    let description = response.into_body().collect().await.unwrap().to_bytes();
    let description: serde_json::Value = serde_json::from_slice(&description).unwrap();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let route = format!("{} {path}", method.to_uppercase());
            assert!(
                HTTP.iter().any(|(_, known)| *known == route),
                "{route} has no row"
            );
        }
    }
    for (row, route) in HTTP {
        let (method, path) = route.split_once(' ').unwrap();
        let path = path
            .replace("{stream}", "some-stream")
            .replace("{group}", "some-group")
            .replace("{consumer}", "some-consumer")
            .replace("{code}", "some-code");
        let mut ask = async |credentials: &str| {
            let request = server.request(method.parse().unwrap(), &path, credentials);
            let request = request
                .header("content-type", "application/json")
                .body(Full::default());
            sender.send_request(request.unwrap()).await.unwrap()
        };
        for credentials in BAD {
            let response = ask(credentials).await;
            let status = response.status();
            let rejected = matches!(
                status,
                StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS
            );
            assert_eq!(rejected, *row != Anyone, "{route}, {credentials}: {status}");
            let challenged = response.headers().contains_key("www-authenticate");
            assert_eq!(
                challenged,
                status == StatusCode::UNAUTHORIZED,
                "{route}, {credentials}"
            );
        }
        let status = ask("insufficient").await.status();
        assert_ne!(status, StatusCode::UNAUTHORIZED, "{route}");
        assert!(
            *row != Operators || status == StatusCode::FORBIDDEN,
            "{route}: {status}"
        );
        for credentials in GOOD {
            let status = ask(credentials).await.status();
            assert!(
                ![401, 403, 429].contains(&status.as_u16()),
                "{route}, {credentials}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn guessing_is_limited_and_does_not_keep_out_who_is_known_already() {
    let server = Guarded::start().await;
    let mut sender = server.connect().await;
    let head = "/leftfold.v1.Store/Head";
    assert_eq!(server.call(&mut sender, head, "right user").await, None);
    let mut limited = 0;
    for _ in 0..40 {
        let code = server.call(&mut sender, head, "wrong password").await;
        limited += u32::from(code == Some(Code::ResourceExhausted));
        assert!(is_rejected(code), "{code:?}");
    }
    assert!(
        (25..=35).contains(&limited),
        "ten failures at once: {limited} of 40 were limited"
    );
    assert_eq!(
        server.call(&mut sender, head, "right user").await,
        None,
        "it was verified before"
    );
    assert_eq!(server.call(&mut sender, head, "right key").await, None);
}
