//! Users and keys over the wire, from the first administrator to the audit.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::{Read, StreamName};
use leftfold_proto::{
    event_store::client::{
        Empty, StreamIdentifier, persistent_subscriptions as groups,
        persistent_subscriptions::persistent_subscriptions_client::PersistentSubscriptionsClient,
        users::{
            ChangePasswordReq, CreateReq, DetailsReq, DisableReq, change_password_req, create_req,
            details_req, disable_req, users_client::UsersClient,
        },
    },
    leftfold::v1::{HeadRequest, StatsRequest, store_client::StoreClient},
};
use leftfold_server::{Server, Settings, access::verify_audit};
use leftfold_store::{EventStore, MemoryStore};
use tokio::{net::TcpStream, sync::oneshot};
use tonic::{Code, Request, Status, transport::Channel};

use crate::{certificates::Authority, tls::TlsTestServer};

/// A request of a user.
fn by<T>(login: &str, password: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Basic {}", STANDARD.encode(format!("{login}:{password}")));
    request
        .metadata_mut()
        .insert("authorization", value.parse().unwrap());
    request
}

async fn head(channel: &Channel, login: &str, password: &str) -> Result<(), Code> {
    let asked = StoreClient::new(channel.clone())
        .head(by(login, password, HeadRequest {}))
        .await;
    asked.map(drop).map_err(|status| status.code())
}

async fn create(
    channel: &Channel,
    administrator: (&str, &str),
    login: &str,
    groups: &[&str],
) -> Result<(), Status> {
    let options = create_req::Options {
        login_name: login.into(),
        password: "correct horse".into(),
        full_name: login.to_uppercase(),
        groups: groups.iter().map(ToString::to_string).collect(),
    };
    let request = CreateReq {
        options: Some(options),
    };
    let created = UsersClient::new(channel.clone())
        .create(by(administrator.0, administrator.1, request))
        .await;
    created.map(drop)
}

/// Changes the password of `bob`, who shows one password and names one as the current.
async fn change_password(
    users: &mut UsersClient<Channel>,
    shown: &str,
    current: &str,
) -> Result<(), Code> {
    let options = change_password_req::Options {
        login_name: "bob".into(),
        current_password: current.into(),
        new_password: "battery staple".into(),
    };
    let request = ChangePasswordReq {
        options: Some(options),
    };
    let changed = users.change_password(by("bob", shown, request)).await;
    changed.map(drop).map_err(|status| status.code())
}

#[tokio::test]
async fn an_administrator_makes_users_who_change_their_passwords_and_are_disabled() {
    let authority = Authority::new();
    authority.issue("server", "leftfold");
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let server = TlsTestServer::start(Arc::clone(&store), &authority, &[]).await;
    let password = server.first_password.clone().unwrap();
    let admin = ("admin", password.as_str());
    let channel = server.connect(&authority, None).await.unwrap();
    let mut users = UsersClient::new(channel.clone());

    create(&channel, admin, "bob", &[]).await.unwrap();
    let twice = create(&channel, admin, "bob", &[]).await.unwrap_err();
    assert_eq!(twice.code(), Code::FailedPrecondition);
    assert_eq!(twice.metadata().get("exception").unwrap(), "user-conflict");
    assert_eq!(twice.metadata().get("login-name").unwrap(), "bob");
    let by_bob = create(&channel, ("bob", "correct horse"), "dan", &[])
        .await
        .unwrap_err();
    assert_eq!(by_bob.metadata().get("exception").unwrap(), "access-denied");

    assert_eq!(head(&channel, "bob", "correct horse").await, Ok(()));
    let stats = StoreClient::new(channel.clone())
        .stats(by("bob", "correct horse", StatsRequest {}))
        .await;
    assert_eq!(stats.unwrap_err().code(), Code::PermissionDenied);

    let refused = change_password(&mut users, "correct horse", "wrong horse").await;
    assert_eq!(refused, Err(Code::PermissionDenied));
    let changed = change_password(&mut users, "correct horse", "correct horse").await;
    assert_eq!(changed, Ok(()));
    assert_eq!(
        head(&channel, "bob", "correct horse").await,
        Err(Code::Unauthenticated)
    );
    assert_eq!(head(&channel, "bob", "battery staple").await, Ok(()));

    let options = Some(details_req::Options {
        login_name: "bob".into(),
    });
    let details = users
        .details(by("bob", "battery staple", DetailsReq { options }))
        .await
        .unwrap();
    let details: Vec<_> = details.into_inner().try_collect().await.unwrap();
    assert_eq!(details[0].user_details.as_ref().unwrap().full_name, "BOB");
    let all = users
        .details(by("bob", "battery staple", DetailsReq { options: None }))
        .await;
    assert_eq!(all.unwrap_err().code(), Code::PermissionDenied);

    let options = Some(disable_req::Options {
        login_name: "bob".into(),
    });
    users
        .disable(by(admin.0, admin.1, DisableReq { options }))
        .await
        .unwrap();
    assert_eq!(
        head(&channel, "bob", "battery staple").await,
        Err(Code::Unauthenticated)
    );
    let options = Some(disable_req::Options {
        login_name: "eve".into(),
    });
    let nobody = users
        .disable(by(admin.0, admin.1, DisableReq { options }))
        .await
        .unwrap_err();
    assert_eq!(
        nobody.metadata().get("exception").unwrap(),
        "user-not-found"
    );
}

#[tokio::test]
async fn guessing_at_the_current_password_is_limited_as_guessing_at_a_login_is() {
    let authority = Authority::new();
    authority.issue("server", "leftfold");
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let server = TlsTestServer::start(store, &authority, &[]).await;
    let password = server.first_password.clone().unwrap();
    let channel = server.connect(&authority, None).await.unwrap();
    create(&channel, ("admin", &password), "bob", &[])
        .await
        .unwrap();
    assert_eq!(head(&channel, "bob", "correct horse").await, Ok(()));
    let mut users = UsersClient::new(channel.clone());
    let mut limited = 0;
    for _ in 0..40 {
        match change_password(&mut users, "correct horse", "wrong horse").await {
            Err(Code::PermissionDenied) => {}
            Err(Code::ResourceExhausted) => limited += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(
        limited > 0,
        "of 40 failures ten are taken at once, and one in six seconds"
    );
    assert_eq!(
        head(&channel, "bob", "correct horse").await,
        Ok(()),
        "what was verified before goes on"
    );
}

#[tokio::test]
async fn the_audit_is_chained_and_holds_no_password() {
    let authority = Authority::new();
    authority.issue("server", "leftfold");
    std::fs::write(authority.path("password"), "first password\n").unwrap();
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let file = authority.setting("password");
    let server = TlsTestServer::start(
        Arc::clone(&store),
        &authority,
        &[("admin_password_file", &file)],
    )
    .await;
    assert_eq!(server.first_password, None, "it came from a file");
    let channel = server.connect(&authority, None).await.unwrap();
    create(&channel, ("admin", "first password"), "bob", &[])
        .await
        .unwrap();
    create(&channel, ("bob", "correct horse"), "dan", &[])
        .await
        .unwrap_err();
    assert_eq!(
        head(&channel, "bob", "wrong horse").await,
        Err(Code::Unauthenticated)
    );
    let audit = StreamName::new("$audit").unwrap();
    let events = loop {
        let read: Vec<_> = store
            .read(Read::stream(audit.clone()))
            .try_collect()
            .await
            .unwrap();
        let events: Vec<_> = read.into_iter().flat_map(|batch| batch.events).collect();
        if events.len() >= 3 {
            break events;
        }
        tokio::task::yield_now().await;
    };
    let mut previous: Option<String> = None;
    let mut entries = Vec::new();
    for event in &events {
        let entry = verify_audit(event, previous.as_deref()).unwrap();
        previous = Some(entry.hash.clone());
        entries.push((entry.principal, entry.allowed));
        let text = String::from_utf8_lossy(&event.data).into_owned();
        assert!(
            !text.contains("horse") && !text.contains("first password"),
            "{text}"
        );
    }
    assert_eq!(entries[0], ("user admin".to_owned(), true));
    assert_eq!(entries[1], ("user bob".to_owned(), false));
    assert_eq!(entries[2], ("127.0.0.1".to_owned(), false));
    let mut changed = events[1].clone();
    let text = String::from_utf8_lossy(&changed.data).replace("user bob", "user eve");
    changed.data = text.into_bytes().into();
    verify_audit(
        &changed,
        Some(&verify_audit(&events[0], None).unwrap().hash),
    )
    .unwrap_err();
    verify_audit(
        &events[2],
        Some(&verify_audit(&events[0], None).unwrap().hash),
    )
    .unwrap_err();
}

fn account() -> StreamIdentifier {
    StreamIdentifier {
        stream_name: "account-1".to_owned().into(),
    }
}

/// Creates the group `g` of a stream, joins it, and returns what is told of its consumers.
async fn consumers_of_a_group(
    channel: &Channel,
    (login, password): (&str, &str),
) -> Vec<groups::subscription_info::ConnectionInfo> {
    use groups::{create_req, get_info_req, read_req, stream_options::RevisionOption};
    let mut client = PersistentSubscriptionsClient::new(channel.clone());
    let source = groups::StreamOptions {
        stream_identifier: Some(account()),
        revision_option: Some(RevisionOption::Start(Empty {})),
    };
    let settings = groups::Settings {
        live_buffer_size: 500,
        read_batch_size: 20,
        history_buffer_size: 500,
        consumer_strategy: "RoundRobin".into(),
        ..groups::Settings::default()
    };
    let options = create_req::Options {
        stream_option: Some(create_req::options::StreamOption::Stream(source)),
        group_name: "g".into(),
        settings: Some(settings),
        ..create_req::Options::default()
    };
    let create = groups::CreateReq {
        options: Some(options),
    };
    client.create(by(login, password, create)).await.unwrap();
    let options = read_req::Options {
        stream_option: Some(read_req::options::StreamOption::StreamIdentifier(account())),
        group_name: "g".into(),
        buffer_size: 10,
        uuid_option: None,
    };
    let join = groups::ReadReq {
        content: Some(read_req::Content::Options(options)),
    };
    let requests = stream::iter([join]).chain(stream::pending());
    let joined = client.read(by(login, password, requests)).await.unwrap();
    let mut answers = joined.into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let options = get_info_req::Options {
        stream_option: Some(get_info_req::options::StreamOption::StreamIdentifier(
            account(),
        )),
        group_name: "g".into(),
    };
    let info = groups::GetInfoReq {
        options: Some(options),
    };
    let info = client.get_info(by(login, password, info)).await.unwrap();
    info.into_inner().subscription_info.unwrap().connections
}

#[tokio::test]
async fn a_consumer_of_a_group_is_shown_with_its_login_and_address() {
    let authority = Authority::new();
    authority.issue("server", "leftfold");
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let server = TlsTestServer::start(store, &authority, &[]).await;
    let password = server.first_password.clone().unwrap();
    let channel = server.connect(&authority, None).await.unwrap();
    let consumers = consumers_of_a_group(&channel, ("admin", &password)).await;
    assert_eq!(consumers.len(), 1);
    assert_eq!(consumers[0].username, "admin");
    assert!(consumers[0].from.starts_with("127.0.0.1:"), "{consumers:?}");
}

/// To verify a password takes longer than the call may take.
#[tokio::test]
async fn a_call_whose_deadline_passes_while_its_password_is_verified_is_not_begun() {
    let mut settings = Settings::default();
    for (name, value) in [("listen", "127.0.0.1:0"), ("authentication", "on")] {
        settings.set(name, value).unwrap();
    }
    let store = Arc::new(MemoryStore::new());
    let server = Server::bind(store, settings).await.unwrap();
    let (address, password) = (server.address(), server.first_password().unwrap());
    let basic = format!("Basic {}", STANDARD.encode(format!("admin:{password}")));
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    let driven = tokio::spawn(connection);
    let call = http::Request::post(format!("http://{address}/leftfold.v1.Store/Head"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", basic)
        .header("grpc-timeout", "1m");
    let (answer, mut body) = client.send_request(call.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers().get("grpc-status").unwrap(), "4");
    drop((client, stop));
    driven.await.unwrap().unwrap();
    served.await.unwrap().unwrap();
}
