//! Giving back the space of erased events, while others work, and through interruptions.
//!
//! **Owns:** these tests. **Does not know:** which events are erased; the conformance suite has the rules.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use leftfold_model::{
    Append, AppendCondition, Conflict, EventType,
    ExpectedRevision::{Any, NoStream},
    Position, Query, QueryItem, Read, Revision, Tag,
};
use leftfold_postgres::{PostgresOptions, PostgresStore, testing::Server};
use leftfold_store::{
    AppendError, Delete, EventStore, Scavenge, ScavengeProgress, StreamMetadata, Subscription,
};

use crate::{
    fixtures::{event, followed_all, revisions, stream, surely, to, types},
    server::{fresh, server},
};

/// Appends `count` tagged events with a hundred bytes each to a stream.
async fn fill(store: &PostgresStore, name: &str, count: usize) {
    let tag = Tag::new("filled").unwrap();
    let mut left = count;
    while left > 0 {
        let some = left.min(1_000);
        let filled = (0..some).map(|_| {
            let event = event("Filled").with_data(vec![b'x'; 100]);
            event.with_tags([tag.clone()]).unwrap()
        });
        let append = Append::to(stream(name), Any, filled.collect()).unwrap();
        surely(store, &append).await;
        left -= some;
    }
}

fn tagged(tag: &str) -> Query {
    let item = QueryItem::tags([Tag::new(tag).unwrap()]).unwrap();
    Query::items([item]).unwrap()
}

async fn truncate(store: &PostgresStore, name: &str, before: u64) {
    let metadata = StreamMetadata::default().with_truncate_before(Revision::new(before));
    let append = metadata.append_for(&stream(name), Any).unwrap();
    surely(store, &append).await;
}

async fn scavenge(store: &PostgresStore) -> ScavengeProgress {
    let reports = store.scavenge(Scavenge::default());
    let reports: Vec<_> = reports.try_collect().await.unwrap();
    let last = *reports.last().unwrap();
    assert!(
        last.finished && last.parts_done == last.parts,
        "{reports:?}"
    );
    last
}

async fn sound(store: &PostgresStore) {
    let report = store.verify().await.unwrap();
    assert_eq!(report.findings, []);
}

/// A number that a statement over the tables of a store answers.
fn number(options: &PostgresOptions, sql: &str) -> u64 {
    let sql = sql.replace("{s}", options.schema());
    server().psql("postgres", &sql).trim().parse().unwrap()
}

#[tokio::test]
async fn events_of_one_process_are_erased_by_another_with_their_tags_and_keep_their_places() {
    let options = fresh();
    let one = PostgresStore::open_with(options.clone()).await.unwrap();
    let two = PostgresStore::open_with(options.clone()).await.unwrap();
    let kept: Append = to("kept", Any, "Kept");
    let erased = to("a-1", NoStream, "Erased");
    let first = one.append(erased.clone()).await.unwrap();
    fill(&one, "a-1", 2_500).await;
    one.append(kept).await.unwrap();
    truncate(&one, "a-1", 2_400).await;
    let head = one.head().await.unwrap();
    let reports = scavenge(&two).await;
    assert_eq!((reports.events, reports.streams), (2_400, 1));
    assert_eq!(reports.bytes, 2_399 * 100 + 2);
    assert_eq!(number(&options, "select count(*) from {s}.events"), 103);
    assert_eq!(number(&options, "select count(*) from {s}.event_tags"), 101);
    assert_eq!(
        number(&options, "select count(*) from {s}.erased_tags"),
        2_399
    );
    assert_eq!(one.head().await.unwrap(), head);
    assert_eq!(revisions(&one, "a-1").await.len(), 101);
    assert_eq!(types(&one).await.len(), 103);
    // The erased event's id and position stay known.
    let again = one.append(erased.clone()).await.unwrap();
    assert_eq!((again.repeated, again.first), (true, first.first));
    let mut other = erased.into_parts().0;
    other[0].stream = stream("b-1");
    let refused = one.append(Append::new(other, vec![]).unwrap()).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(
            refused,
            AppendError::Conflict(Conflict::PartlyStored { .. })
        ),
        "{refused}"
    );
    let next = two.append(to("a-1", Any, "Next")).await.unwrap();
    assert_eq!(next.first, head.next());
    assert_eq!(next.streams[0].1, Revision::new(2_501));
    let report = one.verify().await.unwrap();
    assert_eq!((report.events, report.erased), (104, 2_400));
    sound(&one).await;
}

#[tokio::test]
async fn the_newest_event_of_all_can_be_erased_and_the_log_goes_on_behind_it() {
    let options = fresh();
    let store = PostgresStore::open_with(options.clone()).await.unwrap();
    let metadata = StreamMetadata::default().with_max_age(Duration::from_secs(60));
    let append = metadata.append_for(&stream("a-1"), Any).unwrap();
    store.append(append).await.unwrap();
    let old = |_| {
        let old = leftfold_model::Timestamp::from_micros(1);
        event("Old")
            .with_time(old)
            .with_tags([Tag::new("t").unwrap()])
            .unwrap()
    };
    let append = Append::to(stream("a-1"), Any, (0..3).map(old).collect()).unwrap();
    store.append(append.clone()).await.unwrap();
    assert_eq!(scavenge(&store).await.events, 3);
    assert_eq!(store.head().await.unwrap(), Position::new(4));
    let category = leftfold_model::Category::new("a").unwrap();
    for read in [
        Read::all(),
        Read::all().backwards(),
        Read::category(category),
        Read::query(tagged("t")),
        Read::stream(stream("a-1")),
    ] {
        let events: Vec<_> = store.read(read).try_collect::<Vec<_>>().await.unwrap();
        let of_a = events.iter().flat_map(|batch| &batch.events);
        assert_eq!(
            of_a.filter(|event| event.stream == stream("a-1")).count(),
            0
        );
    }
    assert!(store.append(append).await.unwrap().repeated);
    // Nothing is left to do, and once the stream goes on the emptied row goes too.
    assert_eq!(scavenge(&store).await.events, 0);
    sound(&store).await;
    let next = store.append(to("a-1", Any, "Next")).await.unwrap();
    assert_eq!(next.first, Position::new(5));
    assert_eq!(next.streams[0].1, Revision::new(3));
    scavenge(&store).await;
    assert_eq!(
        number(
            &options,
            "select count(*) from {s}.events where content_type = 0"
        ),
        0
    );
    assert_eq!(number(&options, "select count(*) from {s}.erased"), 3);
    assert_eq!(revisions(&store, "a-1").await, [3]);
    sound(&store).await;
}

#[tokio::test]
async fn a_sweep_that_is_dropped_is_finished_by_the_next() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    fill(&store, "a-1", 3_500).await;
    fill(&store, "b-1", 10).await;
    truncate(&store, "a-1", 3_400).await;
    store
        .delete(Delete::stream(stream("b-1"), Any))
        .await
        .unwrap();
    let mut sweep = store.scavenge(Scavenge::default());
    let first = sweep.next().await.unwrap().unwrap();
    assert_eq!((first.events, first.finished), (1_000, false));
    // The second batch is given up while the server is at it.
    let given_up = tokio::time::timeout(Duration::from_millis(2), sweep.next()).await;
    drop((given_up, sweep));
    sound(&store).await;
    assert_eq!(revisions(&store, "a-1").await.len(), 100);
    let rest = scavenge(&store).await.events;
    // What was under way when the first one was dropped may have been finished.
    assert!((1_410..=2_410).contains(&rest), "{rest}");
    assert_eq!(types(&store).await.len(), 100 + 2);
    sound(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_through_which_the_server_is_killed_loses_nothing_and_is_finished() {
    let mut server = Server::start();
    let store = PostgresStore::open(&server.database()).await.unwrap();
    fill(&store, "a-1", 6_000).await;
    fill(&store, "b-1", 50).await;
    truncate(&store, "a-1", 5_900).await;
    let slowly = Scavenge::default().with_bytes_per_second(3_500_000);
    let mut sweep = store.scavenge(slowly);
    assert!(sweep.next().await.unwrap().unwrap().events > 0);
    let killed = tokio::task::spawn_blocking(move || {
        server.kill();
        server.launch();
        server
    });
    // The sweep goes on over the new connection, or tells that it could not; both leave the rest to do.
    let _interrupted: Result<Vec<_>, _> = sweep.try_collect().await;
    let server = killed.await.unwrap();
    scavenge(&store).await;
    assert_eq!(revisions(&store, "a-1").await.len(), 100);
    assert_eq!(revisions(&store, "b-1").await.len(), 50);
    assert_eq!(store.head().await.unwrap(), Position::new(6_051));
    assert_eq!(store.verify().await.unwrap().erased, 5_900);
    sound(&store).await;
    drop(server);
}

#[tokio::test]
async fn a_slow_sweep_keeps_to_its_bytes_per_second() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    fill(&store, "a-1", 200).await;
    truncate(&store, "a-1", 200).await;
    let begun = Instant::now();
    let slowly = Scavenge::default().with_bytes_per_second(90_000);
    let reports: Vec<_> = store.scavenge(slowly).try_collect().await.unwrap();
    // 20,000 bytes of content, and what goes with 200 rows: two seconds, of which the last pause is not waited for.
    assert!(begun.elapsed() > Duration::from_secs(1), "{reports:?}");
    assert!(reports.len() > 4, "{reports:?}");
    assert!(
        reports
            .windows(2)
            .all(|pair| pair[0].events <= pair[1].events)
    );
    assert_eq!(reports.last().unwrap().events, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_reads_and_subscriptions_go_on_while_space_is_given_back() {
    let options = fresh();
    let one = PostgresStore::open_with(options.clone()).await.unwrap();
    let two = PostgresStore::open_with(options).await.unwrap();
    fill(&one, "a-1", 5_000).await;
    truncate(&one, "a-1", 4_950).await;
    let writing = tokio::spawn({
        let two = two.clone();
        async move {
            for n in 0..100 {
                two.append(to(&format!("w-{}", n % 7), Any, "Written"))
                    .await
                    .unwrap();
            }
        }
    });
    let reading = tokio::spawn({
        let two = two.clone();
        async move {
            for _ in 0..10 {
                assert_eq!(revisions(&two, "a-1").await.len(), 50);
            }
        }
    });
    let slowly = Scavenge::default().with_bytes_per_second(7_000_000);
    let reports: Vec<_> = one.scavenge(slowly).try_collect().await.unwrap();
    assert_eq!(reports.last().unwrap().events, 4_950);
    writing.await.unwrap();
    reading.await.unwrap();
    let head = one.head().await.unwrap();
    assert_eq!(head, Position::new(5_101));
    let all = followed_all(&two, Subscription::default(), head).await;
    assert_eq!(all.len(), 151);
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
    sound(&one).await;
}

#[tokio::test]
async fn a_condition_finds_erased_events_and_emptied_ones_by_type_and_by_tags() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let tags = |names: &[&str]| {
        names
            .iter()
            .map(|name| Tag::new(*name).unwrap())
            .collect::<Vec<_>>()
    };
    let some = |kind: &str, names: &[&str]| event(kind).with_tags(tags(names)).unwrap();
    let events = vec![
        some("A", &["x", "y"]),
        some("B", &["x"]),
        some("C", &["y", "z"]),
    ];
    store
        .append(Append::to(stream("a-1"), NoStream, events).unwrap())
        .await
        .unwrap();
    truncate(&store, "a-1", 3).await;
    assert_eq!(scavenge(&store).await.events, 3);
    let kinds = |names: &[&str]| {
        names
            .iter()
            .map(|name| EventType::new(*name).unwrap())
            .collect::<Vec<_>>()
    };
    // Types, tags, the position of the condition, and the position that fails it. The stream's newest event is an erased row.
    type Asked<'a> = (&'a [&'a str], &'a [&'a str], u64, Option<u64>);
    let asked: [Asked<'_>; 10] = [
        (&["A"], &[], 0, Some(1)),
        (&["A"], &[], 1, None),
        (&["C"], &[], 1, Some(3)),
        (&[], &["x"], 1, Some(2)),
        (&[], &["x"], 2, None),
        (&[], &["x", "y"], 0, Some(1)),
        (&[], &["y", "z"], 0, Some(3)),
        (&["B"], &["y"], 0, None),
        (&["C"], &["y"], 0, Some(3)),
        (&["A", "B"], &["x"], 1, Some(2)),
    ];
    for (types, names, after, place) in asked {
        let item = QueryItem::new(kinds(types), tags(names)).unwrap();
        let condition = AppendCondition {
            fail_if_match: Query::items([item]).unwrap(),
            after: Position::new(after).into(),
        };
        let append = to("c-1", Any, "Decided").with_condition(condition).unwrap();
        let found = match store.append(append).await {
            Ok(_) => None,
            Err(AppendError::Conflict(Conflict::ConditionFailed { position, .. })) => {
                Some(position.get())
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(found, place, "{types:?} {names:?} {after}");
    }
    for query in ["x", "y", "z"].map(tagged) {
        let read: Vec<_> = store.read(Read::query(query)).try_collect().await.unwrap();
        assert!(read.iter().all(|batch| batch.events.is_empty()));
    }
    let item = QueryItem::types(kinds(&["C"])).unwrap();
    let read = store.read(Read::query(Query::items([item]).unwrap()));
    let read: Vec<_> = read.try_collect().await.unwrap();
    assert!(read.iter().all(|batch| batch.events.is_empty()));
}
