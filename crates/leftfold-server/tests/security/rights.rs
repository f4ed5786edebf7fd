//! What principals with few rights are told over the wire, tried as an attacker would.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use leftfold_model::{Append, ContentType, EventType, ExpectedRevision, NewEvent, StreamName};
use leftfold_proto::{
    event_store::client::{
        AccessDenied, Empty, StreamIdentifier, Uuid,
        persistent_subscriptions::{
            ReadReq, ReadResp,
            persistent_subscriptions_client::PersistentSubscriptionsClient,
            read_req::{self, options::StreamOption},
            read_resp::{Content, ReadEvent},
        },
        streams::{
            BatchAppendReq, MetadataEntry,
            batch_append_req::{
                Options, ProposedMessage, options::ExpectedStreamPosition as Expected,
            },
            batch_append_resp,
            streams_client::StreamsClient,
        },
        uuid,
    },
    prost::{Message, Name},
};
use leftfold_server::{
    access::AccessAdmin,
    groups::{GroupCatalog, GroupId, GroupName, GroupSettings, GroupSource, GroupStart},
};
use leftfold_store::{EventStore, MemoryStore, StreamMetadata};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tonic::{Code, Request, Status, Streaming};

use crate::test_server::TestServer;

const PASSWORD: &str = "correct horse";

/// A server that authenticates: `root` administers, `ann` and `bob` are users, `secret-1` is for ann alone.
struct Rig {
    server: TestServer,
    store: Arc<dyn EventStore>,
    /// The key with the grant `read:tag=tenant:1`.
    tag_key: String,
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn basic(login: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{login}:{password}")))
}

/// The metadata that gives a stream to ann alone.
fn for_ann_alone(name: &str) -> Append {
    let acl = json!({"$r": "ann", "$w": "ann", "$mr": "ann", "$mw": "ann"});
    let metadata = StreamMetadata::default().with_property("$acl", acl);
    metadata
        .append_for(&stream(name), ExpectedRevision::Any)
        .unwrap()
}

impl Rig {
    async fn new() -> Self {
        let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
        let admin = AccessAdmin::open(Arc::clone(&store)).await.unwrap();
        for (login, groups) in [
            ("root", vec!["$admins".to_owned()]),
            ("ann", vec![]),
            ("bob", vec![]),
        ] {
            admin
                .create_user(login, PASSWORD, login, groups)
                .await
                .unwrap();
        }
        let grants = ["read:tag=tenant:1".parse().unwrap()];
        let tag_key = admin.create_key("tenant", &grants, None).await.unwrap().key;
        drop(admin);
        let open = StreamMetadata::default().with_property("$acl", json!({"$r": "$all"}));
        let open = open.append_for(&stream("$ce-secret"), ExpectedRevision::Any);
        store.append(open.unwrap()).await.unwrap();
        store.append(for_ann_alone("secret-1")).await.unwrap();
        let rig = Self {
            server: TestServer::new(Arc::clone(&store), &[("authentication", "on")]).await,
            store,
            tag_key,
        };
        rig.append("secret-1", "T", "the secret").await;
        rig
    }

    async fn append(&self, name: &str, event_type: &str, data: &'static str) {
        let event = NewEvent::new(
            EventType::new(event_type).unwrap(),
            ContentType::Binary,
            data,
        );
        let append = Append::to(stream(name), ExpectedRevision::Any, vec![event]);
        self.store.append(append.unwrap()).await.unwrap();
    }

    /// Creates the group `mail` that resolves links, from the start of its source.
    async fn group(&self, source: GroupSource) {
        let id = GroupId {
            source,
            name: GroupName::new("mail").unwrap(),
        };
        let mut settings = GroupSettings::default();
        (settings.start, settings.resolve_links) = (GroupStart::Start, true);
        let groups = GroupCatalog::new(Arc::clone(&self.store));
        groups.create(&id, settings, None).await.unwrap();
    }

    /// Joins the group `mail` of a stream, or of everything.
    async fn join(&self, of: Option<&str>, login: &str) -> Result<Consumer, Status> {
        let password = match login {
            "tenant" => self.tag_key.as_str(),
            _ => PASSWORD,
        };
        let options = read_req::Options {
            stream_option: Some(match of {
                Some(name) => StreamOption::StreamIdentifier(StreamIdentifier {
                    stream_name: name.as_bytes().to_vec().into(),
                }),
                None => StreamOption::All(Empty {}),
            }),
            group_name: "mail".into(),
            buffer_size: 100,
            uuid_option: None,
        };
        let (say, said) = mpsc::channel(1);
        let first = ReadReq {
            content: Some(read_req::Content::Options(options)),
        };
        say.send(first).await.unwrap();
        let said = futures_util::stream::unfold(said, |mut said| async move {
            said.recv().await.map(|request| (request, said))
        });
        let mut request = Request::new(said);
        let value = basic(login, password).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let mut client = PersistentSubscriptionsClient::new(self.server.connect().await);
        let mut answers = client.read(request).await?.into_inner();
        answers.message().await?.unwrap();
        Ok(Consumer { _say: say, answers })
    }
}

/// A member of a group, which acknowledges nothing.
struct Consumer {
    _say: mpsc::Sender<ReadReq>,
    answers: Streaming<ReadResp>,
}

impl Consumer {
    /// The next event: its stream, its data and where the link that led to it is.
    async fn next(&mut self) -> Result<(Option<(String, String)>, Option<String>), Status> {
        let answer = self.answers.message().await?.unwrap();
        let Some(Content::Event(bytes)) = answer.content else {
            panic!("no event: {answer:?}")
        };
        let read = ReadEvent::decode(bytes).unwrap();
        let name = |id: Option<StreamIdentifier>| {
            String::from_utf8(id.unwrap().stream_name.to_vec()).unwrap()
        };
        let event = read.event.map(|event| {
            let data = String::from_utf8_lossy(&event.data).into_owned();
            (name(event.stream_identifier), data)
        });
        Ok((event, read.link.map(|link| name(link.stream_identifier))))
    }
}

fn is_denied<T>(outcome: Result<T, Status>) -> bool {
    outcome.is_err_and(|status| status.code() == Code::PermissionDenied)
}

#[tokio::test]
async fn a_group_resolves_links_with_the_rights_of_each_consumer() {
    let rig = Rig::new().await;
    rig.append("links-1", "$>", "0@secret-1").await;
    rig.append("links-1", "$>", "0@$user-root").await;
    rig.group(GroupSource::Stream(stream("links-1"))).await;
    let mut bob = rig.join(Some("links-1"), "bob").await.unwrap();
    for _ in 0..2 {
        assert_eq!(bob.next().await.unwrap(), (None, Some("links-1".into())));
    }
    drop(bob);
    let mut ann = rig.join(Some("links-1"), "ann").await.unwrap();
    let mut given = [ann.next().await.unwrap().0, ann.next().await.unwrap().0];
    given.sort();
    let secret = Some(("secret-1".to_owned(), "the secret".to_owned()));
    assert_eq!(
        given,
        [None, secret],
        "a record of credentials is for no one"
    );
}

#[tokio::test]
async fn a_group_is_consumed_by_those_who_may_read_all_of_its_stream() {
    let rig = Rig::new().await;
    rig.append("orders-1", "T", "an order").await;
    for name in ["secret-1", "orders-1", "$ce-secret"] {
        rig.group(GroupSource::Stream(stream(name))).await;
    }
    rig.group(GroupSource::All).await;
    assert!(is_denied(rig.join(Some("secret-1"), "bob").await));
    assert!(is_denied(rig.join(None, "bob").await));
    // A key for a tag reads no whole stream, though a read of it is given what has the tag.
    assert!(is_denied(rig.join(Some("secret-1"), "tenant").await));
    assert!(is_denied(rig.join(Some("orders-1"), "tenant").await));
    // All users may read this index, but its links name streams that bob may not read.
    assert!(is_denied(rig.join(Some("$ce-secret"), "bob").await));
    rig.join(Some("$ce-secret"), "root").await.unwrap();
    rig.join(Some("orders-1"), "bob").await.unwrap();
}

#[tokio::test]
async fn a_consumer_leaves_its_group_when_its_right_to_read_ends() {
    let rig = Rig::new().await;
    rig.append("orders-1", "T", "an order").await;
    rig.group(GroupSource::Stream(stream("orders-1"))).await;
    let mut bob = rig.join(Some("orders-1"), "bob").await.unwrap();
    let mut ann = rig.join(Some("orders-1"), "ann").await.unwrap();
    bob.next().await.unwrap();
    rig.store.append(for_ann_alone("orders-1")).await.unwrap();
    let ended = loop {
        if let Err(ended) = bob.next().await {
            break ended;
        }
    };
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
    // What bob had goes to a consumer that still may have it.
    let given = ann.next().await.unwrap().0;
    assert_eq!(given, Some(("orders-1".to_owned(), "an order".to_owned())));
}

#[tokio::test]
async fn a_group_of_everything_has_no_record_of_credentials() {
    let rig = Rig::new().await;
    rig.group(GroupSource::All).await;
    rig.append("last-1", "T", "").await;
    let mut root = rig.join(None, "root").await.unwrap();
    loop {
        let (event, link) = root.next().await.unwrap();
        let (name, _) = event.unwrap();
        assert!(
            !name.starts_with("$user-") && !name.starts_with("$key-"),
            "{name}, {link:?}"
        );
        if name == "last-1" {
            break;
        }
    }
}

#[tokio::test]
async fn a_consumer_over_http_is_given_what_its_principal_may_read() {
    let rig = Rig::new().await;
    rig.append("links-1", "$>", "0@secret-1").await;
    rig.group(GroupSource::Stream(stream("links-1"))).await;
    let said = consumed_over_http(&rig, "bob", "\"link\"").await;
    assert!(said.contains("\"event\":null"), "{said}");
    assert!(!said.contains("the secret"), "{said}");
    let denied = consumed_over_http(&rig, "tenant", "403").await;
    assert!(denied.starts_with("HTTP/1.1 403"), "{denied}");
}

/// What a consumer of the group `mail` of `links-1` is sent until it has been told this.
async fn consumed_over_http(rig: &Rig, login: &str, until: &str) -> String {
    let password = match login {
        "tenant" => rig.tag_key.as_str(),
        _ => PASSWORD,
    };
    let mut socket = TcpStream::connect(rig.server.address()).await.unwrap();
    let request = format!(
        "GET /api/v1/subscriptions/links-1/mail/events HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\n\r\n",
        basic(login, password)
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = socket.read(&mut part).await.unwrap();
        said.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&said);
        if count == 0 || text.contains(until) {
            return text.into_owned();
        }
    }
}

#[tokio::test]
async fn a_denied_batch_is_told_as_denied() {
    let rig = Rig::new().await;
    let append = BatchAppendReq {
        correlation_id: Some(Uuid {
            value: Some(uuid::Value::String(
                "7fe55af1-1f9c-4d3a-8b3d-7d8a3d6f4c11".into(),
            )),
        }),
        options: Some(Options {
            stream_identifier: Some(StreamIdentifier {
                stream_name: "secret-1".into(),
            }),
            deadline_option: None,
            expected_stream_position: Some(Expected::Any(())),
        }),
        proposed_messages: vec![ProposedMessage {
            id: Some(Uuid {
                value: Some(uuid::Value::String(
                    "7fe55af1-1f9c-4d3a-8b3d-7d8a3d6f4c12".into(),
                )),
            }),
            metadata: [("type", "T"), ("content-type", "application/json")]
                .map(|(key, value)| MetadataEntry {
                    key: key.into(),
                    value: value.into(),
                })
                .into(),
            custom_metadata: Vec::new().into(),
            data: b"{}".to_vec().into(),
        }],
        is_final: true,
    };
    let mut request = Request::new(futures_util::stream::iter([append]));
    let value = basic("bob", PASSWORD).parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let mut client = StreamsClient::new(rig.server.connect().await);
    let answers = client.batch_append(request).await.unwrap().into_inner();
    let answers: Vec<_> = answers.collect().await;
    let Some(batch_append_resp::Result::Error(error)) = &answers[0].as_ref().unwrap().result else {
        panic!("{answers:?}")
    };
    assert_eq!(error.code, Code::PermissionDenied as i32);
    let expected = format!("type.googleapis.com/{}", AccessDenied::full_name());
    assert_eq!(error.details[0].type_url, expected);
}
