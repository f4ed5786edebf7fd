//! Rules of tenants: what one of them does to reach another.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use leftfold_model::{
    ErrorChain, ExpectedRevision::Any, NewEvent, Position, Query, Read, Revision, Tag,
};

use super::{
    Fixture,
    fixtures::{
        Store, category, event, events, exact, follow, kind, of_tags, of_types, ok, read, stream,
        tag, tagged, to, try_read, unless,
    },
};
use crate::{
    AppendError, Delete, ListStreams, ReadError, SavedSnapshot, Scavenge, StreamMetadata,
    Subscription, TenantName, TenantStore,
    consumers::{ClaimRequest, ConsumerError, ConsumerName},
};

/// Names of which some are the beginning of others, or look like others in their stored form.
const ALIKE: [&str; 9] = [
    "acme",
    "acme1",
    "acm",
    "acme/room",
    "acme-1",
    "acme%2D1",
    "@acme",
    "$$acme",
    "ACME",
];

pub(super) fn tenant(store: &Store, name: &str) -> Store {
    let name = TenantName::new(name).unwrap();
    Arc::new(TenantStore::new(Arc::clone(store), name))
}

async fn listed(store: &Store) -> Vec<String> {
    let list = store.streams(ListStreams::default());
    let listed = list.try_concat().await.unwrap();
    listed.iter().map(|info| info.stream.to_string()).collect()
}

pub async fn tenants_of_names_that_begin_alike_see_nothing_of_each_other(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store
        .append(to("room-1", Any, vec![tagged("T", &["x"])]))
        .await);
    for name in ALIKE {
        let event = NewEvent::json(kind("T"), format!("{name:?}"));
        let event = event.with_tags([tag("x")]).unwrap();
        let tenant = tenant(&store, name);
        ok(tenant.append(to("room-1", exact_none(), vec![event])).await);
        let metadata = StreamMetadata::default().with_property("owner", name);
        ok(tenant
            .append(metadata.append_for(&stream("room-1"), Any).unwrap())
            .await);
    }
    for name in ALIKE {
        let tenant = tenant(&store, name);
        let own = format!("{name:?}");
        for wanted in [
            Read::query(of_types(&["T"])),
            Read::query(of_tags(&["x"])),
            Read::category(category("room")),
            Read::stream(stream("room-1")),
        ] {
            let seen = read(&tenant, wanted.clone()).await;
            let seen: Vec<_> = seen.iter().map(|event| &event.data[..]).collect();
            assert_eq!(seen, [own.as_bytes()], "{name}: {wanted:?}");
        }
        assert_eq!(read(&tenant, Read::all()).await.len(), 2, "{name}");
        assert_eq!(
            read(&tenant, Read::category(category("$$room")))
                .await
                .len(),
            1
        );
        assert_eq!(listed(&tenant).await, ["$$room-1", "room-1"], "{name}");
        let state = tenant.stream_state(stream("room-1")).await.unwrap();
        assert_eq!(state.last, Some(Revision::new(0)));
        assert_eq!(state.metadata.entries()["owner"], name);
        let delivered = follow(&tenant, Subscription::default(), |d| d.caught_up).await;
        assert_eq!(delivered.len(), 2, "{name}");
        let stats = tenant.stats().await.unwrap();
        assert_eq!(stats.events, 2, "{name}");
        assert_eq!(stats.head, delivered[1].position);
    }
}

fn exact_none() -> leftfold_model::ExpectedRevision {
    leftfold_model::ExpectedRevision::NoStream
}

pub async fn one_append_is_stored_once_for_each_tenant(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (acme, other) = (tenant(&store, "acme"), tenant(&store, "acme1"));
    let append = to("order-1", exact_none(), vec![tagged("T", &["$key:k"])]);
    let first = ok(acme.append(append.clone()).await);
    let second = ok(other.append(append.clone()).await);
    assert!(!first.repeated && !second.repeated && second.first > first.last);
    // Each recognises its own repetition, and gets the id that it gave.
    for (tenant, first) in [(&acme, &first), (&other, &second)] {
        let again = ok(tenant.append(append.clone()).await);
        assert!(again.repeated && again.first == first.first);
        let stored = read(tenant, Read::query(of_tags(&["$key:k"]))).await;
        let ids: Vec<_> = append.events().map(NewEvent::id).collect();
        assert_eq!(stored.iter().map(|event| event.id).collect::<Vec<_>>(), ids);
    }
}

pub async fn conditions_and_checks_heed_the_tenants_own_events_alone(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (acme, other) = (tenant(&store, "acme"), tenant(&store, "acme1"));
    ok(other
        .append(to("seat-1", Any, vec![tagged("Taken", &["seat:1"])]))
        .await);
    ok(store
        .append(to("seat-1", Any, vec![tagged("Taken", &["seat:1"])]))
        .await);
    let queries = || [of_types(&["Taken"]), of_tags(&["seat:1"]), Query::All];
    for (query, nth) in queries().into_iter().zip(1..) {
        let append = unless(to("note-1", Any, vec![event("Noted")]), query, 0);
        let append = append.with_check(stream("seat-1"), exact_none()).unwrap();
        // A tenant without events, whatever others have appended.
        ok(tenant(&store, &format!("fresh{nth}")).append(append).await);
    }
    ok(acme
        .append(to("seat-1", Any, vec![tagged("Taken", &["seat:1"])]))
        .await);
    for query in queries() {
        let append = unless(to("note-1", Any, vec![event("Noted")]), query, 0);
        let refused = acme.append(append).await;
        assert!(
            matches!(refused, Err(AppendError::Conflict(_))),
            "{refused:?}"
        );
    }
}

pub async fn names_that_imitate_anothers_stored_names_reach_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (acme, intruder) = (tenant(&store, "acme"), tenant(&store, "intruder"));
    ok(acme
        .append(to("room-1", Any, vec![tagged("T", &["x"])]))
        .await);
    let prefix = TenantName::new("acme").unwrap().stored_prefix();
    for name in [
        format!("{prefix}room-1"),
        format!("../{prefix}room-1"),
        format!("${prefix}room-1"),
        format!("/{prefix}room-1"),
        format!("-{prefix}room-1"),
    ] {
        assert!(
            read(&intruder, Read::stream(stream(&name)))
                .await
                .is_empty()
        );
        let state = intruder.stream_state(stream(&name)).await.unwrap();
        assert_eq!(state.last, None, "{name}");
        ok(intruder
            .append(to(&name, exact_none(), vec![tagged("T", &["x"])]))
            .await);
        ok(intruder.delete(Delete::stream(stream(&name), Any)).await);
    }
    for label in [prefix.as_str(), &format!("{prefix}x")] {
        assert!(
            read(&intruder, Read::query(of_tags(&[label])))
                .await
                .is_empty()
        );
        ok(intruder
            .append(to("mine", Any, vec![tagged("T", &[label])]))
            .await);
    }
    let metadata = StreamMetadata::default()
        .with_max_count(0)
        .with_truncate_before(Revision::new(9));
    let imitated = stream(&format!("{prefix}room-1"));
    ok(intruder
        .append(metadata.append_for(&imitated, Any).unwrap())
        .await);
    let seen = read(&acme, Read::all()).await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].tags, [tag("x")]);
    assert_eq!(read(&acme, Read::stream(stream("room-1"))).await.len(), 1);
    assert_eq!(acme.stats().await.unwrap().events, 1);
}

pub async fn deletions_and_tombstones_concern_one_tenant(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (acme, other) = (tenant(&store, "acme"), tenant(&store, "acme1"));
    for tenant in [&acme, &other] {
        for name in ["room-1", "room-2"] {
            ok(tenant.append(to(name, Any, events(2))).await);
        }
    }
    ok(acme
        .delete(Delete::stream(stream("room-1"), exact(1)))
        .await);
    ok(acme.delete(Delete::tombstone(stream("room-2"), Any)).await);
    for name in ["room-1", "room-2"] {
        assert_eq!(read(&other, Read::stream(stream(name))).await.len(), 2);
    }
    let gone = try_read(&acme, Read::stream(stream("room-2"))).await;
    let Err(ReadError::StreamDeleted { stream: named }) = gone else {
        panic!("{gone:?}")
    };
    assert_eq!(named, stream("room-2"));
    // The events by which the store records it are the tenant's too, and so is what recreates a stream.
    ok(acme.append(to("room-1", Any, events(1))).await);
    let own = read(
        &acme,
        Read::query(of_types(&["$metadata", "$streamDeleted"])),
    )
    .await;
    assert_eq!(own.len(), 3, "{own:?}");
    assert!(own.iter().all(|event| event.tags.is_empty()));
    assert_eq!(read(&other, Read::all()).await.len(), 4);
}

pub async fn consumers_of_two_tenants_are_different(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (acme, other) = (tenant(&store, "acme"), tenant(&store, "acme1"));
    let named = |name: &str| ConsumerName::new(name).unwrap();
    let (ours, theirs) = (acme.consumers(), other.consumers());
    let long = Duration::from_secs(3_600);
    let mut claim = ours
        .claim(&ClaimRequest::new(named("mailer"), "a", long))
        .await
        .unwrap();
    ours.advance(&mut claim, Position::new(7), Vec::new())
        .await
        .unwrap();
    assert_eq!(claim.position, Position::new(7));
    assert_eq!(theirs.status(&named("mailer")).await.unwrap(), None);
    let refused = theirs.reset(&named("mailer"), Position::START).await;
    assert!(
        matches!(&refused, Err(ConsumerError::NotFound { consumer }) if *consumer == named("mailer"))
    );
    theirs.remove(&named("mailer")).await.unwrap();
    for imitated in ["@acme/mailer", "../acme/mailer"] {
        assert_eq!(theirs.status(&named(imitated)).await.unwrap(), None);
    }
    let mut second = theirs
        .claim(&ClaimRequest::new(named("mailer"), "b", long))
        .await
        .unwrap();
    assert_eq!(second.position, Position::START);
    theirs
        .advance(&mut second, Position::new(3), Vec::new())
        .await
        .unwrap();
    for (consumers, at, holder) in [(&ours, 7, "a"), (&theirs, 3, "b")] {
        let all = consumers.list(None).await.unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(
            (&all[0].consumer, all[0].position),
            (&named("mailer"), Position::new(at))
        );
        assert_eq!(
            all[0].holder.as_ref().map(|(holder, _)| holder.as_str()),
            Some(holder)
        );
        assert!(
            consumers
                .list(Some(&named("mailer")))
                .await
                .unwrap()
                .is_empty()
        );
    }
    let held = ours
        .claim(&ClaimRequest::new(named("mailer"), "c", long))
        .await;
    assert!(
        matches!(&held, Err(ConsumerError::Held { consumer, .. }) if *consumer == named("mailer"))
    );
}

pub async fn snapshots_of_two_tenants_are_different(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (acme, other) = (tenant(&store, "acme"), tenant(&store, "acme1"));
    let snapshot = |state: &'static str| SavedSnapshot {
        revision: Revision::new(4),
        position: Position::new(9),
        last_event: NewEvent::json(kind("T"), "{}").id(),
        fingerprint: [1; 16],
        state: state.into(),
    };
    let room = stream("room-1");
    acme.snapshots()
        .save(&room, snapshot("ours"))
        .await
        .unwrap();
    assert_eq!(other.snapshots().load(&room).await.unwrap(), None);
    other
        .snapshots()
        .save(&room, snapshot("theirs"))
        .await
        .unwrap();
    other.snapshots().remove(&room).await.unwrap();
    let kept = acme.snapshots().load(&room).await.unwrap().unwrap();
    assert_eq!(kept.state, "ours");
}

pub async fn errors_hold_the_tenants_own_names(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let acme = tenant(&store, "acme");
    ok(acme.append(to("room-1", Any, events(1))).await);
    let mut texts = Vec::new();
    let mut note = |error: &(dyn std::error::Error + 'static)| {
        texts.push(ErrorChain(error).to_string());
    };
    note(
        &acme
            .append(to("room-1", exact(8), events(1)))
            .await
            .unwrap_err(),
    );
    note(
        &acme
            .append(to(&"s".repeat(1_024), Any, events(1)))
            .await
            .unwrap_err(),
    );
    note(
        &acme
            .append(to("$$$$room", Any, events(1)))
            .await
            .unwrap_err(),
    );
    let long = Tag::new("g".repeat(255)).unwrap();
    note(
        &acme
            .append(to("a", Any, vec![event("T").with_tags([long]).unwrap()]))
            .await
            .unwrap_err(),
    );
    let tags: Vec<_> = (0..64).map(|n| tag(&n.to_string())).collect();
    note(
        &acme
            .append(to("a", Any, vec![event("T").with_tags(tags).unwrap()]))
            .await
            .unwrap_err(),
    );
    for text in &texts {
        assert!(!text.contains('@'), "{text}");
    }
    assert!(
        texts[0].contains("stream room-1 is at revision 0"),
        "{}",
        texts[0]
    );
    let stored = read(&acme, Read::query(of_types(&["T"]))).await;
    assert_eq!(stored.len(), 1, "nothing was written");
}

pub async fn errors_of_deleted_streams_and_of_consumers_hold_the_tenants_own_names(
    fixture: &impl Fixture,
) {
    let store = fixture.open().await;
    let acme = tenant(&store, "acme");
    ok(acme.append(to("room-1", Any, events(1))).await);
    let mut texts = Vec::new();
    let mut note = |error: &(dyn std::error::Error + 'static)| {
        texts.push(ErrorChain(error).to_string());
    };
    ok(acme.delete(Delete::tombstone(stream("room-1"), Any)).await);
    note(&acme.append(to("room-1", Any, events(1))).await.unwrap_err());
    note(
        &acme
            .delete(Delete::stream(stream("room-1"), Any))
            .await
            .unwrap_err(),
    );
    note(
        &acme
            .delete(Delete::stream(stream("none-1"), exact(1)))
            .await
            .unwrap_err(),
    );
    note(
        &try_read(&acme, Read::stream(stream("room-1")))
            .await
            .unwrap_err(),
    );
    let name = ConsumerName::new("c".repeat(255)).unwrap();
    note(&acme.consumers().status(&name).await.unwrap_err());
    let name = ConsumerName::new("none").unwrap();
    note(
        &acme
            .consumers()
            .reset(&name, Position::START)
            .await
            .unwrap_err(),
    );
    let refused = acme.scavenge(Scavenge::default()).next().await.unwrap();
    assert!(
        matches!(&refused, Err(ReadError::AccessDenied { .. })),
        "{refused:?}"
    );
    note(&refused.unwrap_err());
    for text in &texts {
        assert!(!text.contains('@'), "{text}");
    }
}

pub async fn a_closed_tenant_leaves_the_others_open(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (acme, other) = (tenant(&store, "acme"), tenant(&store, "acme1"));
    let mut ours = acme.subscribe(Subscription::default());
    let mut theirs = other.subscribe(Subscription::default());
    assert!(ours.next().await.unwrap().unwrap().caught_up);
    assert!(theirs.next().await.unwrap().unwrap().caught_up);
    acme.close().await.unwrap();
    assert!(ours.next().await.is_none());
    let refused = acme.append(to("a", Any, events(1))).await;
    assert!(
        matches!(refused, Err(AppendError::Unavailable { .. })),
        "{refused:?}"
    );
    ok(other.append(to("a", Any, events(1))).await);
    loop {
        let delivery = theirs.next().await.unwrap().unwrap();
        if !delivery.events.is_empty() {
            break;
        }
    }
    store.check().await.unwrap();
}

pub async fn tenants_of_a_tenant_are_apart_too(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let acme = tenant(&store, "acme");
    let (north, south) = (tenant(&acme, "north"), tenant(&acme, "south"));
    for tenant in [&north, &south, &acme] {
        ok(tenant
            .append(to("room-1", exact_none(), vec![tagged("T", &["x"])]))
            .await);
    }
    ok(north.delete(Delete::stream(stream("room-1"), Any)).await);
    assert_eq!(read(&north, Read::all()).await.len(), 2);
    assert_eq!(read(&south, Read::all()).await.len(), 1);
    assert_eq!(listed(&south).await, ["room-1"]);
    // The outer tenant has what its inner ones have.
    assert_eq!(read(&acme, Read::all()).await.len(), 4);
}

pub async fn a_scavenge_of_the_store_takes_nothing_that_a_tenant_reads(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (acme, other) = (tenant(&store, "acme"), tenant(&store, "acme1"));
    for tenant in [&acme, &other] {
        for name in ["room-1", "room-2", "-odd"] {
            ok(tenant.append(to(name, Any, events(7))).await);
        }
    }
    let metadata = StreamMetadata::default().with_max_count(2);
    ok(acme
        .append(metadata.append_for(&stream("room-1"), Any).unwrap())
        .await);
    ok(acme.delete(Delete::stream(stream("-odd"), Any)).await);
    let all = async |tenant: &Store| {
        let mut all = Vec::new();
        for name in ["room-1", "room-2", "-odd", "$$room-1", "$$-odd"] {
            all.push(read(tenant, Read::stream(stream(name))).await);
        }
        all
    };
    let before = (all(&acme).await, all(&other).await);
    let whole = read(&other, Read::all()).await;
    let steps: Vec<_> = store
        .scavenge(Scavenge::default())
        .try_collect()
        .await
        .unwrap();
    assert!(steps.last().is_some_and(|last| last.finished));
    assert_eq!((all(&acme).await, all(&other).await), before);
    assert_eq!(read(&other, Read::all()).await, whole);
}
