//! The guard: an administrator meets the contract unchanged, everyone else what a table predicts.
//!
//! **Owns:** the table of who may do what. **Does not know:** how rights are looked up.

mod filtering;

use std::sync::Arc;

use futures_util::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use leftfold_model::{
    AppendCondition, ConflictToken, EventType, ExpectedRevision, NewEvent, Query, QueryItem,
    Revision, Tag,
};
use leftfold_store::{MemoryStore, conformance::Fixture};
use prometheus_client::metrics::counter::Counter;
use serde_json::json;

use super::*;
use crate::{
    Settings,
    access::record::{KEY_CHANGED, KeyRecord, USER_CHANGED, UserRecord, key_stream, user_stream},
    clock,
};

async fn access(store: Arc<dyn EventStore>, settings: &Settings) -> Arc<AccessControl> {
    AccessControl::open(
        Arc::clone(&store),
        store,
        settings,
        Counter::default(),
        None,
    )
    .await
    .unwrap()
}

/// A user who is known without an event in the store.
fn user(access: &AccessControl, login: &str, groups: &[&str]) -> Principal {
    let record = UserRecord {
        full_name: login.into(),
        groups: groups.iter().map(ToString::to_string).collect(),
        disabled: false,
        deleted: false,
        password_hash: String::new(),
        credential: "1".into(),
        updated: Timestamp::UNIX_EPOCH,
    };
    let data = serde_json::to_vec(&record).unwrap();
    let stream = user_stream(login).unwrap();
    access
        .directory
        .apply_appended(&stream, USER_CHANGED, Revision::new(0), &data);
    Principal::User {
        login: login.into(),
        credential: "1".into(),
    }
}

/// A key that is known without an event in the store.
fn key(access: &AccessControl, id: &str, grants: &[&str]) -> Principal {
    let record = KeyRecord {
        name: id.into(),
        grants: grants.iter().map(ToString::to_string).collect(),
        secret_hash: String::new(),
        created: Timestamp::UNIX_EPOCH,
        expires: None,
        revoked: false,
    };
    let data = serde_json::to_vec(&record).unwrap();
    let stream = key_stream(id).unwrap();
    access
        .directory
        .apply_appended(&stream, KEY_CHANGED, Revision::new(0), &data);
    Principal::Key {
        id: id.into(),
        name: id.into(),
    }
}

/// A user whom a token names that ends so many seconds from now.
fn token(login: &str, groups: &[&str], seconds: i64) -> Principal {
    let now = Timestamp::try_from(clock::now()).unwrap();
    Principal::Token {
        login: login.into(),
        groups: groups.iter().map(ToString::to_string).collect(),
        expires: now + SignedDuration::from_secs(seconds),
    }
}

/// Stores as an administrator uses them.
struct Administrator;

impl Fixture for Administrator {
    async fn open(&self) -> Arc<dyn EventStore> {
        let access = access(Arc::new(MemoryStore::new()), &Settings::default()).await;
        let principal = user(&access, "ann", &["$admins"]);
        access.guard(principal)
    }
}

leftfold_store::conformance!(as_an_administrator, Administrator);

/// Stores as a key uses them that may do everything.
struct AdministratorsKey;

impl Fixture for AdministratorsKey {
    async fn open(&self) -> Arc<dyn EventStore> {
        let access = access(Arc::new(MemoryStore::new()), &Settings::default()).await;
        let principal = key(&access, "root", &["admin"]);
        access.guard(principal)
    }
}

leftfold_store::conformance!(by_the_key_of_an_administrator, AdministratorsKey);

/// The streams of the model.
const STREAMS: [&str; 7] = [
    "order-1",
    "order-2",
    "invoice-1",
    "secret-1",
    "$report-1",
    "$tracking-shop",
    "$settings",
];
/// The tags of the model.
const TAGS: [&str; 2] = ["tenant:1", "tenant:2"];

fn name(stream: &str) -> StreamName {
    StreamName::new(stream).unwrap()
}

fn event(tag: Option<&str>) -> NewEvent {
    let event = NewEvent::json(EventType::new("T").unwrap(), "{}");
    event
        .with_tags(tag.map(|tag| Tag::new(tag).unwrap()))
        .unwrap()
}

fn append(stream: &str, tag: Option<&str>) -> Append {
    Append::to(name(stream), ExpectedRevision::Any, vec![event(tag)]).unwrap()
}

/// A store with two lists of its own: `secret-1` is for the group `keepers`, `order-2` is read by everyone and written by
/// writers; `$report-1` is read by everyone.
async fn listed() -> (Arc<dyn EventStore>, Arc<AccessControl>) {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    for (stream, acl) in [
        (
            "secret-1",
            json!({"$r": "keepers", "$w": "keepers", "$d": "keepers", "$mr": "keepers", "$mw": "keepers"}),
        ),
        ("order-2", json!({"$r": "$all", "$w": ["writers"]})),
        ("$report-1", json!({"$r": "$all"})),
    ] {
        let metadata = StreamMetadata::default().with_property("$acl", acl);
        let append = metadata
            .append_for(&name(stream), ExpectedRevision::Any)
            .unwrap();
        store.append(append).await.unwrap();
    }
    let access = access(Arc::clone(&store), &Settings::default()).await;
    (store, access)
}

/// What each principal may do with each stream of [`STREAMS`]: r(ead), w(rite), d(elete), m(etadata read), M(etadata write).
/// Written by hand, from what docs/security.md promises.
fn expected(who: &str, stream: &str) -> &'static str {
    match (who, stream) {
        ("ann" | "token of an admin", _) => "rwdmM",
        ("bob" | "ops", "secret-1" | "$settings") => "",
        ("bob" | "ops", "$report-1") => "r",
        ("bob" | "ops", "order-2") => "rdmM",
        ("bob" | "ops", _) => "rwdmM",
        ("kit" | "token of a keeper", "secret-1") => "rwdmM",
        ("kit" | "token of a keeper", "$report-1") => "r",
        ("kit" | "token of a keeper", "$settings") => "",
        ("kit" | "token of a keeper", _) => "rwdmM",
        ("reader", "$settings" | "$report-1") => "",
        ("reader", _) => "rm",
        ("orders", "order-1" | "order-2") => "rwm",
        ("owner", "invoice-1") => "rwdmM",
        _ => "",
    }
}

/// How many principals the model has.
const PRINCIPALS: usize = 13;

fn principals(access: &AccessControl) -> [(&'static str, Principal); PRINCIPALS] {
    [
        ("ann", user(access, "ann", &["$admins"])),
        ("bob", user(access, "bob", &[])),
        ("kit", user(access, "kit", &["keepers", "writers"])),
        ("ops", user(access, "ops", &["$ops"])),
        ("reader", key(access, "reader", &["read"])),
        (
            "orders",
            key(
                access,
                "orders",
                &["read:category=order", "append:prefix=order-"],
            ),
        ),
        ("owner", key(access, "owner", &["admin:prefix=invoice-"])),
        (
            "tenant",
            key(
                access,
                "tenant",
                &["read:tag=tenant:1", "append:tag=tenant:1"],
            ),
        ),
        ("nobody", Principal::Anonymous),
        ("token of an admin", token("tad", &["$admins"], 60)),
        (
            "token of a keeper",
            token("tia", &["keepers", "writers"], 60),
        ),
        ("token that ended", token("tex", &["$admins"], -60)),
        // The store's own user of that name has the place.
        ("token of bob", token("bob", &["$admins"], 60)),
    ]
}

#[tokio::test]
async fn every_right_on_every_stream_is_as_it_is_promised() {
    for stream in STREAMS {
        let (_, access) = listed().await;
        for (who, principal) in principals(&access) {
            let expected = expected(who, stream);
            let rights = access.directory.read();
            let has = |right| rights.allows(&principal, right, &name(stream));
            let given = [
                ('r', has(Right::Read)),
                ('w', has(Right::Write)),
                ('d', has(Right::Delete)),
                ('m', has(Right::ReadMetadata)),
                ('M', has(Right::WriteMetadata)),
            ];
            let given: String = given
                .iter()
                .filter(|(_, has)| *has)
                .map(|(letter, _)| *letter)
                .collect();
            assert_eq!(given, expected, "{who} on {stream}");
            let described = name(&format!("$${stream}"));
            assert_eq!(
                rights.allows(&principal, Right::Read, &described),
                expected.contains('m'),
                "{who} $${stream}"
            );
            assert_eq!(
                rights.allows(&principal, Right::Write, &described),
                expected.contains('M'),
                "{who} $${stream}"
            );
        }
    }
}

/// Such an event would be the newest of its stream, which is the one that a scavenge keeps.
#[tokio::test]
async fn no_event_of_another_type_takes_the_place_of_an_access_control_list() {
    let (_, access) = listed().await;
    let guarded = access.guard(user(&access, "ann", &["$admins"]));
    let hiding = guarded.append(append("$$secret-1", None)).await;
    let refused = hiding.unwrap_err().to_string();
    assert!(
        refused.contains("access control list of secret-1"),
        "{refused}"
    );
    guarded.append(append("$$plain-1", None)).await.unwrap();
    let metadata = StreamMetadata::default().with_property("$acl", json!({"$r": "$all"}));
    let set = metadata.append_for(&name("secret-1"), ExpectedRevision::Any);
    guarded.append(set.unwrap()).await.unwrap();
}

#[tokio::test]
async fn calls_do_what_rights_allow_and_nothing_else() {
    for stream in STREAMS {
        let (store, access) = listed().await;
        store.append(append(stream, None)).await.unwrap();
        for (who, principal) in principals(&access) {
            let may = expected(who, stream);
            let guarded = access.guard(principal);
            let before = store.head().await.unwrap();
            let read: Result<Vec<_>, _> =
                guarded.read(Read::stream(name(stream))).try_collect().await;
            match read {
                Ok(batches) => {
                    // A key with a right by tag may read of any stream what has the tag.
                    assert!(may.contains('r') || who == "tenant", "{who} reads {stream}");
                    let mut events = batches.iter().flat_map(|batch| &batch.events);
                    let hidden = events.all(|event| !event.tags.is_empty());
                    assert_eq!(hidden, !may.contains('r'), "{who} reads {stream}");
                }
                Err(ReadError::AccessDenied { .. }) => {
                    assert!(!may.contains('r'), "{who} reads {stream}")
                }
                Err(error) => panic!("{error}"),
            }
            let written = guarded.append(append(stream, None)).await;
            match &written {
                Ok(_) => assert!(may.contains('w'), "{who} appends to {stream}"),
                Err(AppendError::AccessDenied { .. }) => {
                    assert!(!may.contains('w'), "{who} appends to {stream}")
                }
                Err(error) => panic!("{who} appends to {stream}: {error}"),
            }
            let checked =
                append("order-1", Some("tenant:1")).with_check(name(stream), ExpectedRevision::Any);
            let checked = guarded.append(checked.unwrap()).await;
            let writes = expected(who, "order-1").contains('w') || who == "tenant";
            assert_eq!(
                checked.is_ok(),
                writes && may.contains('r'),
                "{who} checks {stream}: {checked:?}"
            );
            if !may.contains('w') && checked.is_err() {
                assert_eq!(
                    store.head().await.unwrap(),
                    before,
                    "{who} wrote to {stream}"
                );
            }
            let snapshot = guarded.snapshots().load(&name(stream)).await;
            assert_eq!(
                snapshot.is_ok(),
                may.contains('r'),
                "{who} loads a snapshot of {stream}"
            );
            let state = guarded.stream_state(name(stream)).await;
            assert_eq!(
                state.is_ok(),
                !may.is_empty(),
                "{who} asks for the state of {stream}"
            );
            if let Ok(state) = state
                && !may.contains('m')
            {
                assert_eq!(
                    state.metadata,
                    StreamMetadata::default(),
                    "{who} sees the metadata of {stream}"
                );
            }
        }
    }
}

#[tokio::test]
async fn deletions_need_the_right_to_delete() {
    for stream in STREAMS {
        for who in 0..PRINCIPALS {
            let (store, access) = listed().await;
            store.append(append(stream, None)).await.unwrap();
            let (who, principal) = principals(&access)[who].clone();
            let delete = Delete::stream(name(stream), ExpectedRevision::Any);
            let deleted = access.guard(principal).delete(delete).await;
            assert_eq!(
                deleted.is_ok(),
                expected(who, stream).contains('d'),
                "{who} deletes {stream}: {deleted:?}"
            );
        }
    }
}

#[tokio::test]
async fn restricted_reads_are_refused_where_the_settings_say_so() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let mut settings = Settings::default();
    settings.set("restricted_reads", "refuse").unwrap();
    let access = access(store, &settings).await;
    for (grant, allowed) in [("read", true), ("read:category=order", false)] {
        let guarded = access.guard(key(
            &access,
            grant.split(':').next_back().unwrap(),
            &[grant],
        ));
        let read: Result<Vec<_>, _> = guarded.read(Read::all()).try_collect().await;
        assert_eq!(read.is_ok(), allowed, "{grant}: {read:?}");
    }
}

#[tokio::test]
async fn conditions_tell_nothing_of_events_that_are_hidden() {
    let (_, access) = listed().await;
    let by_type =
        || Query::items([QueryItem::types([EventType::new("T").unwrap()]).unwrap()]).unwrap();
    let by_tag =
        |tag: &str| Query::items([QueryItem::tags([Tag::new(tag).unwrap()]).unwrap()]).unwrap();
    let system = || {
        Query::items([QueryItem::types([EventType::new("$user-changed").unwrap()]).unwrap()])
            .unwrap()
    };
    for (who, query, allowed) in [
        ("ann", system(), true),
        // A stream with a list hides events from bob, which could match.
        ("bob", by_type(), false),
        ("kit", by_type(), true),
        ("kit", system(), false),
        ("orders", by_type(), false),
        ("orders", Query::All, false),
        ("tenant", by_tag("tenant:1"), true),
        ("tenant", by_tag("tenant:2"), false),
        ("tenant", by_type(), false),
    ] {
        let (_, principal) = principals(&access)
            .into_iter()
            .find(|(name, _)| *name == who)
            .unwrap();
        let condition = AppendCondition::new(query.clone(), ConflictToken::START);
        let append = append("order-1", Some("tenant:1"))
            .with_condition(condition)
            .unwrap();
        let answer = access.guard(principal).append(append).await;
        let denied = matches!(answer, Err(AppendError::AccessDenied { .. }));
        assert_eq!(denied, !allowed, "{who} with {query:?}: {answer:?}");
    }
}

#[tokio::test]
async fn credentials_and_the_audit_are_written_by_no_principal_and_read_by_few() {
    let (store, access) = listed().await;
    access
        .registry
        .create_user("dan", "correct horse", "Dan", vec![])
        .await
        .unwrap();
    let made = access
        .registry
        .create_key("k", &["read".parse().unwrap()], None)
        .await
        .unwrap();
    let ann = access.guard(user(&access, "ann", &["$admins"]));
    for stream in ["$user-dan", &format!("$key-{}", made.id), "$$$user-dan"] {
        let read: Result<Vec<_>, _> = ann.read(Read::stream(name(stream))).try_collect().await;
        assert!(
            matches!(read, Err(ReadError::AccessDenied { .. })),
            "{stream}: {read:?}"
        );
        let written = ann.append(append(stream, None)).await;
        assert!(
            matches!(written, Err(AppendError::AccessDenied { .. })),
            "{stream}: {written:?}"
        );
    }
    let written = ann.append(append("$audit", None)).await;
    assert!(
        matches!(written, Err(AppendError::AccessDenied { .. })),
        "{written:?}"
    );
    let everything: Vec<_> = ann.read(Read::all()).try_collect().await.unwrap();
    let seen = everything.iter().flat_map(|batch| &batch.events);
    assert!(
        seen.into_iter()
            .all(|event| !event.stream.as_str().contains("$user-")),
        "hashes in the log"
    );
    let raw: Vec<_> = store
        .read(Read::stream(name("$user-dan")))
        .try_collect()
        .await
        .unwrap();
    let record = String::from_utf8(raw[0].events[0].data.to_vec()).unwrap();
    assert!(
        record.contains("$argon2id$") && !record.contains("correct horse"),
        "{record}"
    );
}

#[tokio::test]
async fn a_change_of_rights_counts_at_once_and_ends_what_is_under_way() {
    let (_, access) = listed().await;
    let ann = access.guard(user(&access, "ann", &["$admins"]));
    let bob = access.guard(user(&access, "bob", &[]));
    let mut deliveries =
        bob.subscribe(Subscription::default().scope(Scope::Stream(name("order-1"))));
    deliveries.try_next().await.unwrap().unwrap();
    let closed = StreamMetadata::default().with_property("$acl", json!({"$r": "keepers"}));
    ann.append(
        closed
            .append_for(&name("order-1"), ExpectedRevision::Any)
            .unwrap(),
    )
    .await
    .unwrap();
    let ended = deliveries.try_next().await;
    assert!(
        matches!(ended, Err(ReadError::AccessDenied { .. })),
        "{ended:?}"
    );
    let read: Result<Vec<_>, _> = bob.read(Read::stream(name("order-1"))).try_collect().await;
    assert!(
        matches!(read, Err(ReadError::AccessDenied { .. })),
        "{read:?}"
    );
}

#[tokio::test]
async fn a_revoked_key_ends_its_subscriptions() {
    let (_, access) = listed().await;
    let made = access
        .registry
        .create_key("k", &["read".parse().unwrap()], None)
        .await
        .unwrap();
    let guarded = access.guard(Principal::Key {
        id: made.id.as_str().into(),
        name: "k".into(),
    });
    let mut deliveries = guarded.subscribe(Subscription::default());
    deliveries.try_next().await.unwrap().unwrap();
    access.registry.revoke_key(&made.id).await.unwrap();
    let ended = loop {
        match deliveries.try_next().await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    assert!(
        matches!(ended, Err(ReadError::AccessDenied { .. })),
        "{ended:?}"
    );
}

#[tokio::test]
async fn users_and_keys_are_there_again_when_the_store_is_opened_again() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let first = access(Arc::clone(&store), &Settings::default()).await;
    assert!(
        first
            .create_first_administrator(Some("correct horse"))
            .await
            .unwrap()
            .is_none()
    );
    first
        .registry
        .create_user("bob", "correct horse", "Bob", vec!["x".into()])
        .await
        .unwrap();
    first.registry.delete_user("bob").await.unwrap();
    first
        .registry
        .create_user("bob", "battery staple", "Bob", vec![])
        .await
        .unwrap();
    let key = first
        .registry
        .create_key("k", &["append:tag=a".parse().unwrap()], None)
        .await
        .unwrap();
    first.registry.revoke_key(&key.id).await.unwrap();
    drop(first);
    let second = access(store, &Settings::default()).await;
    let users = second.registry.users();
    let logins: Vec<_> = users
        .iter()
        .map(|user| (user.login.as_str(), user.groups.len()))
        .collect();
    assert_eq!(logins, [("admin", 1), ("bob", 0)]);
    assert!(second.registry.keys()[0].revoked);
    assert!(
        second
            .create_first_administrator(None)
            .await
            .unwrap()
            .is_none(),
        "there is one"
    );
}
