//! Queries and conditions search by their rarest term, whatever plan the server prefers.
//!
//! **Owns:** these tests. **Does not know:** time; the server counts the rows that it looks at.

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, AppendCondition, Category, EventType, ExpectedRevision::Any, Position, Query,
    QueryItem, Read, RecordedEvent, Scope, Tag,
};
use leftfold_postgres::PostgresStore;
use leftfold_store::{Delete, EventStore, Scavenge};

use crate::{
    fixtures::{event, stream, to},
    server::fresh,
};

const EVENTS: usize = 6_000;

fn tag(name: &str) -> Tag {
    Tag::new(name).unwrap()
}

fn query(types: &[&str], tags: &[&str]) -> Query {
    let types = types.iter().map(|name| EventType::new(*name).unwrap());
    let item = QueryItem::new(types, tags.iter().map(|name| tag(name))).unwrap();
    Query::items([item]).unwrap()
}

/// A log in which the tags `common` and `also` and the type `Common` are everywhere, and the tag `rare` is at every 2,000th.
///
/// Returns the store, and the name of its schema.
async fn filled() -> (PostgresStore, String) {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = PostgresStore::open_with(options).await.unwrap();
    for batch in 0..EVENTS / 1_000 {
        let events = (0..1_000).map(|n| {
            let rare = (batch * 1_000 + n) % 2_000 == 7;
            let tags = [tag("common"), tag("also")];
            let tags = tags.into_iter().chain(rare.then(|| tag("rare")));
            event("Common").with_tags(tags).unwrap()
        });
        let name = format!("c-{batch}");
        let append = Append::to(stream(&name), Any, events.collect()).unwrap();
        store.append(append).await.unwrap();
    }
    store.append(to("seldom-1", Any, "Seldom")).await.unwrap();
    (store, schema)
}

async fn positions(store: &PostgresStore, read: Read) -> Vec<u64> {
    let batches: Vec<_> = store.read(read).try_collect().await.unwrap();
    let events = batches.iter().flat_map(|batch| &batch.events);
    events
        .map(|event: &RecordedEvent| event.position.get())
        .collect()
}

/// How many entries of indexes the function that searches reads, by the server's own count.
async fn entries_read(store: &PostgresStore, schema: &str, arguments: &str) -> i64 {
    counted(store, schema, arguments, "tuples_returned").await
}

/// What the server counts of indexes in one call of the function that searches.
async fn counted(store: &PostgresStore, schema: &str, arguments: &str, what: &str) -> i64 {
    let client = store.connection().await.unwrap();
    let count = format!(
        "select sum(pg_stat_get_xact_{what}(i.indexrelid))::bigint from pg_index i \
         where i.indrelid in ('{schema}.events'::regclass, '{schema}.event_tags'::regclass)"
    );
    client.batch_execute("begin").await.unwrap();
    let call = format!("select {schema}.find({arguments})");
    client.query(&call, &[]).await.unwrap();
    let row = client.query_one(&count, &[]).await.unwrap();
    client.batch_execute("commit").await.unwrap();
    row.get(0)
}

#[tokio::test]
async fn a_query_of_common_and_rare_terms_gives_the_right_events_in_both_directions() {
    let (store, _) = filled().await;
    let expected = [8, 2_008, 4_008];
    for query in [
        query(&[], &["common", "rare"]),
        query(&[], &["also", "common", "rare"]),
        query(&["Common"], &["rare"]),
        query(&["Common", "Seldom"], &["common", "rare"]),
    ] {
        assert_eq!(
            positions(&store, Read::query(query.clone())).await,
            expected
        );
        let backwards = Read::query(query).backwards();
        let mut found = positions(&store, backwards).await;
        found.reverse();
        assert_eq!(found, expected);
    }
    let all = positions(&store, Read::query(query(&[], &["also", "common"]))).await;
    assert_eq!(all.len(), EVENTS);
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
    let mut seldom = Read::query(query(&["Seldom"], &[]));
    seldom.scope = Scope::Category(Category::new("seldom").unwrap());
    assert_eq!(positions(&store, seldom).await, [EVENTS as u64 + 1]);
    let mut none = Read::query(query(&[], &["common"]));
    none.scope = Scope::Category(Category::new("seldom").unwrap());
    assert!(positions(&store, none).await.is_empty());
}

#[tokio::test]
async fn a_search_reads_in_proportion_to_its_rarest_term_however_often_it_ran() {
    let (store, schema) = filled().await;
    let searches = [
        "array['common', 'rare'], null, null, 1, 6001, false, false, 256",
        "array['common', 'also', 'rare'], null, null, 1, 6001, true, false, 256",
        "array['common'], array['Nobody'], null, 1, 6001, false, true, 1",
        "array['common'], array['Common'], 'seldom', 1, 6001, false, false, 256",
        "null, array['Common'], 'seldom', 1, 6001, false, false, 256",
        "null, null, 'seldom', 1, 6001, true, false, 256",
    ];
    for round in 0..8 {
        for search in searches {
            let entries = entries_read(&store, &schema, search).await;
            assert!(
                entries < 1_500,
                "{entries} entries for {search}, round {round}"
            );
        }
    }
}

/// Conditions see erased events too.
#[tokio::test]
async fn a_search_among_erased_events_reads_in_proportion_to_its_rarest_term() {
    let (store, schema) = filled().await;
    for batch in 0..EVENTS / 1_000 {
        let delete = Delete::stream(stream(&format!("c-{batch}")), Any);
        store.delete(delete).await.unwrap();
    }
    store
        .delete(Delete::stream(stream("seldom-1"), Any))
        .await
        .unwrap();
    let steps = store.scavenge(Scavenge::default()).try_collect::<Vec<_>>();
    steps.await.unwrap();
    let client = store.connection().await.unwrap();
    let count = format!(
        "select sum(pg_stat_get_xact_numscans(i.indexrelid))::bigint from pg_index i where i.indrelid in \
         ('{schema}.events'::regclass, '{schema}.erased'::regclass, '{schema}.erased_tags'::regclass)"
    );
    for (search, expected) in [
        ("array['common'], array['Nobody'], 1, 6001", None),
        (
            "array['common', 'also'], array['Nobody', 'Seldom'], 1, 6001",
            None,
        ),
        ("array['common'], array['Common'], 1, 6001", Some(1_i64)),
        (
            "array['common', 'rare'], array['Common'], 9, 6001",
            Some(2_008),
        ),
        ("array['common'], array['Common'], 1000, 1000", Some(1_000)),
    ] {
        client.batch_execute("begin").await.unwrap();
        let call = format!("select {schema}.find_first({search})");
        let found: Option<i64> = client.query_one(&call, &[]).await.unwrap().get(0);
        let lookups: i64 = client.query_one(&count, &[]).await.unwrap().get(0);
        client.batch_execute("commit").await.unwrap();
        assert_eq!(found, expected, "{search}");
        assert!(lookups < 100, "{lookups} lookups for {search}");
    }
}

#[tokio::test]
async fn a_search_up_to_a_position_reads_nothing_behind_it() {
    let (store, schema) = filled().await;
    for descending in [false, true] {
        let search = format!("array['also', 'common'], null, null, 1, 2, {descending}, true, 8");
        let blocks = counted(&store, &schema, &search, "blocks_fetched").await;
        // The entries of one of the tags fill 25 blocks or so.
        assert!(blocks < 50, "{blocks} blocks for {search}");
    }
}

#[tokio::test]
async fn conditions_of_common_and_rare_terms_fail_at_the_first_event_that_matches() {
    let (store, _) = filled().await;
    for (types, tags, after, hit) in [
        (&[][..], &["common", "rare"][..], 0, Some(8)),
        (&[], &["also", "rare"], 8, Some(2_008)),
        (&["Common"], &["common", "rare"], 4_008, None),
        (&["Nobody"], &["common"], 0, None),
        (&["Seldom"], &[], 0, Some(EVENTS as u64 + 1)),
    ] {
        let condition = AppendCondition {
            fail_if_match: query(types, tags),
            after: Position::new(after).into(),
        };
        let append = to("decided", Any, "Decided")
            .with_condition(condition)
            .unwrap();
        let found = match store.append(append).await {
            Ok(_) => None,
            Err(leftfold_store::AppendError::Conflict(
                leftfold_model::Conflict::ConditionFailed { position, .. },
            )) => Some(position.get()),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(found, hit, "{types:?} {tags:?} after {after}");
    }
}
