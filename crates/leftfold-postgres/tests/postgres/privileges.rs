//! Who may do what: events never change, and a role can be given no more than it needs.
//!
//! **Owns:** these tests. **Does not know:** appends.

use std::time::Duration;

use leftfold_model::{ExpectedRevision::Any, Position, Read, StreamName};
use leftfold_postgres::{PostgresOptions, PostgresStore};
use leftfold_store::{
    Delete, EventStore, ReadError, Scavenge,
    consumers::{ClaimRequest, ConsumerName},
};

use futures_util::{StreamExt, TryStreamExt};

use crate::{
    fixtures::to,
    server::{fresh, server},
};

/// A role of this name, and options to open the store of `owner` with it.
fn role(name: &str, owner: &PostgresOptions) -> PostgresOptions {
    server().psql("postgres", &format!("create role {name} login"));
    let address = server()
        .address("postgres")
        .replace("leftfold@", &format!("{name}@"));
    let options: PostgresOptions = address.parse().unwrap();
    options.with_schema(owner.schema()).with_connections(2)
}

/// Creates the schema of a store, and opens it with a role of this name that may append and nothing else.
async fn open_as_appender(options: &PostgresOptions, name: &str) -> PostgresStore {
    let schema = options.schema();
    PostgresStore::open_with(options.clone()).await.unwrap();
    let appender = role(name, options);
    server().psql(
        "postgres",
        &format!("select {schema}.grant_append('{name}')"),
    );
    PostgresStore::open_with(appender).await.unwrap()
}

/// Asserts that the database refuses each of these statements.
async fn refuses(store: &PostgresStore, statements: &[String]) {
    let client = store.connection().await.unwrap();
    for statement in statements {
        assert!(
            client.batch_execute(statement).await.is_err(),
            "{statement}"
        );
    }
}

fn changes(schema: &str) -> Vec<String> {
    ["events", "event_tags", "erased", "erased_tags"]
        .iter()
        .flat_map(|table| {
            [
                format!("update {schema}.{table} set position = 7"),
                format!("delete from {schema}.{table}"),
                format!("truncate {schema}.{table}"),
            ]
        })
        .collect()
}

/// The statement that erases the first event of the stream `a`.
fn erasing(schema: &str) -> String {
    format!("select {schema}.erase(array['a'], array[0], array[1], 10, 10, true)")
}

#[tokio::test]
async fn a_role_that_gives_back_space_can_do_that_and_cannot_append() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let owner = PostgresStore::open_with(options.clone()).await.unwrap();
    let sweeper = role(&format!("sweeper_{schema}"), &options);
    server().psql(
        "postgres",
        &format!("select {schema}.grant_scavenge('sweeper_{schema}')"),
    );
    let stream = StreamName::new("a").unwrap();
    for _ in 0..3 {
        owner.append(to("a", Any, "Written")).await.unwrap();
    }
    owner.delete(Delete::stream(stream, Any)).await.unwrap();
    let store = PostgresStore::open_with(sweeper).await.unwrap();
    let reports: Vec<_> = store
        .scavenge(Scavenge::default())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(reports.last().unwrap().events, 3);
    assert!(store.append(to("b", Any, "Never")).await.is_err());
    let mut forbidden = changes(&schema);
    forbidden.push(format!(
        "insert into {schema}.erased values (gen_random_uuid(), 1, 1, 'a', 'T')"
    ));
    refuses(&store, &forbidden).await;
    assert!(owner.verify().await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn a_role_that_consumes_changes_consumers_by_their_functions_only() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let owner = PostgresStore::open_with(options.clone()).await.unwrap();
    owner.append(to("a", Any, "Written")).await.unwrap();
    let consumer = role(&format!("consumer_{schema}"), &options);
    server().psql(
        "postgres",
        &format!("select {schema}.grant_consume('consumer_{schema}')"),
    );
    let store = PostgresStore::open_with(consumer).await.unwrap();
    let consumers = store.consumers();
    let name = ConsumerName::new("mailer").unwrap();
    let request = ClaimRequest::new(name.clone(), "h", Duration::from_secs(60));
    let mut claim = consumers.claim(&request).await.unwrap();
    consumers
        .advance(&mut claim, Position::FIRST, Vec::new())
        .await
        .unwrap();
    consumers
        .renew(&claim, Duration::from_secs(60))
        .await
        .unwrap();
    consumers.release(&claim).await.unwrap();
    consumers.reset(&name, Position::START).await.unwrap();
    assert_eq!(consumers.list(None).await.unwrap().len(), 1);
    consumers.remove(&name).await.unwrap();
    assert!(store.append(to("b", Any, "Never")).await.is_err());
    let mut forbidden = changes(&schema);
    for table in ["consumers", "parked_events", "timers"] {
        forbidden.push(format!("delete from {schema}.{table}"));
        forbidden.push(format!("truncate {schema}.{table}"));
    }
    forbidden.push(format!(
        "update {schema}.consumers set position = 7, term = 1"
    ));
    refuses(&store, &forbidden).await;
    // A role that only reads sees consumers and changes none.
    let reader = role(&format!("watcher_{schema}"), &options);
    server().psql(
        "postgres",
        &format!("select {schema}.grant_read('watcher_{schema}')"),
    );
    let reader = PostgresStore::open_with(reader).await.unwrap();
    assert!(reader.consumers().status(&name).await.unwrap().is_none());
    assert!(reader.consumers().claim(&request).await.is_err());
}

/// The column allows the content type of erased events, which no read shows.
#[tokio::test]
async fn a_role_that_appends_cannot_append_an_event_as_erased() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = open_as_appender(&options, &format!("hider_{schema}")).await;
    let append = |content_type: i16| {
        format!(
            "select {schema}.append(array['a'], array[1], array[1], array[1], array[-1::bigint], array[1], array[1], array[0], \
             array['a'], array[gen_random_uuid()], array['Written'], array[{content_type}::smallint], array['\\x7b7d'::bytea], \
             array[null::bytea], array['{{}}'], array[null::timestamptz], array[]::int[], array[]::int[], array[]::bigint[], \
             array[]::text[], array[]::text[], array[]::int[], array[]::int[], array[]::int[], null, array[null::bigint], \
             true, true, null, array[null::bigint], array[null::uuid])"
        )
    };
    refuses(&store, &[append(0), append(5), append(-1)]).await;
    let client = store.connection().await.unwrap();
    client.batch_execute(&append(1)).await.unwrap();
    assert_eq!(store.head().await.unwrap(), Position::FIRST);
}

#[tokio::test]
async fn the_owner_changes_no_event_by_mistake() {
    let options = fresh();
    let store = PostgresStore::open_with(options.clone()).await.unwrap();
    store.append(to("a", Any, "Written")).await.unwrap();
    let mut forbidden = changes(options.schema());
    // What the function that erases says of its own transaction means nothing in any other.
    forbidden.push(format!(
        "set leftfold.erasing = 'on'; delete from {}.events",
        options.schema()
    ));
    refuses(&store, &forbidden).await;
}

#[tokio::test]
async fn a_role_that_appends_can_append_and_read_and_nothing_else() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = open_as_appender(&options, &format!("appender_{schema}")).await;
    store.append(to("a", Any, "Written")).await.unwrap();
    assert_eq!(
        store
            .read(Read::all())
            .next()
            .await
            .unwrap()
            .unwrap()
            .events
            .len(),
        1
    );
    let mut forbidden = changes(&schema);
    forbidden.push(format!("insert into {schema}.event_tags values ('a', 1)"));
    forbidden.push(format!("drop table {schema}.events"));
    forbidden.push(format!("alter table {schema}.events disable trigger all"));
    forbidden.push(format!("select {schema}.grant_append('public')"));
    forbidden.push(format!("select {schema}.grant_scavenge('public')"));
    forbidden.push(erasing(&schema));
    forbidden.push(format!("lock table {schema}.append_lock in exclusive mode"));
    forbidden.push(format!(
        "insert into {schema}.consumers (name, position, term, moved_at) values ('mailer', 7, 1, now())"
    ));
    forbidden.push(format!(
        "select {schema}.claim_consumer('mailer', 'h', 1000000, 7)"
    ));
    forbidden.push(format!("select {schema}.grant_consume('public')"));
    forbidden.push(format!(
        "select set_config('leftfold.erasing', pg_current_xact_id()::text, false); delete from {schema}.events"
    ));
    refuses(&store, &forbidden).await;
}

/// A call of the append function that writes one event of a stream, with this content type and type.
fn raw_append(schema: &str, stream: &str, content_type: i16, kind: &str) -> String {
    format!(
        "select {schema}.append(array['{stream}'], array[1], array[1], array[1], array[-3], array[1], array[1], array[0], \
         array['{stream}'], array[gen_random_uuid()], array['{kind}'], array[{content_type}]::smallint[], array['x'::bytea], \
         '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', \
         null, array[null]::bigint[], true, true, null, '{{}}', '{{}}')"
    )
}

/// Metadata and tags of an event: its tags are a table, and no list.
const TABLE_OF_TAGS: &str = "'{}', array['{{a,b},{c,d}}']";
/// Metadata, tags and time of an event: its time is none that a clock shows.
const NO_TIME: &str = "'{}', '{}', array['infinity'::timestamptz]";

#[tokio::test]
async fn no_role_stores_an_event_that_programs_cannot_read() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = open_as_appender(&options, &format!("raw_{schema}")).await;
    let long = "n".repeat(256);
    let sound = raw_append(&schema, "a", 1, "T");
    let nil = "'00000000-0000-0000-0000-000000000000'::uuid";
    refuses(
        &store,
        &[
            sound.replace("gen_random_uuid()", nil),
            sound.replacen("'{}', '{}'", TABLE_OF_TAGS, 1),
            sound.replacen("'{}', '{}', '{}'", NO_TIME, 1),
            raw_append(&schema, "a", 77, "T"),
            raw_append(&schema, "a", -1, "T"),
            raw_append(&schema, "", 1, "T"),
            raw_append(&schema, "a", 1, &long),
            raw_append(&schema, "a\u{1}b", 1, "T"),
        ],
    )
    .await;
    let client = store.connection().await.unwrap();
    client.batch_execute(&sound).await.unwrap();
    assert_eq!(
        store
            .read(Read::all())
            .next()
            .await
            .unwrap()
            .unwrap()
            .events
            .len(),
        1
    );
}

#[tokio::test]
async fn no_role_that_appends_leaves_a_gap_in_a_stream_or_in_the_log() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = open_as_appender(&options, &format!("gap_{schema}")).await;
    let stream = "array[1], array[-3], array[1], array[1], array[0], array['a']";
    let sound = raw_append(&schema, "a", 1, "T");
    assert!(sound.contains(stream));
    let with = |places: &str| sound.replacen(stream, places, 1);
    refuses(
        &store,
        &[
            with("array[1], array[-3], array[1], array[1], array[7], array['a']"),
            with("array[1], array[-3], array[1], array[1], array[-1], array['a']"),
            with("array[1], array[-3], array[1], array[1], array[0], array['b']"),
            with("array[2], array[-3], array[1], array[1], array[0], array['a']"),
            with("array[1], array[-3], array[2], array[1], array[0], array['a']"),
            with("array[1], array[-3], array[-1], array[1], array[0], array['a']"),
            with("array[1], array[-3], array[1], array[2], array[0], array['a']"),
        ],
    )
    .await;
    let client = store.connection().await.unwrap();
    client.batch_execute(&sound).await.unwrap();
    // The stream ends at revision 0. What a role says it knows of that is looked up.
    for known in [-1, 6] {
        let head = store.head().await.unwrap();
        let unlike = sound.replacen(
            "null, array[null]::bigint[]",
            &format!("{head}, array[{known}]::bigint[]"),
            1,
        );
        assert_ne!(unlike, sound);
        client.batch_execute(&unlike).await.unwrap();
    }
    let events: Vec<_> = store.read(Read::all()).try_collect().await.unwrap();
    let revisions: Vec<u64> = events
        .iter()
        .flat_map(|batch| &batch.events)
        .map(|event| event.revision.get())
        .collect();
    assert_eq!(revisions, [0, 1, 2]);
    assert!(store.verify().await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn events_before_one_that_cannot_be_read_are_delivered() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = PostgresStore::open_with(options).await.unwrap();
    for _ in 0..3 {
        store.append(to("a", Any, "Written")).await.unwrap();
    }
    // Damage that the constraints would refuse.
    server().psql(
        "postgres",
        &format!(
            "alter table {schema}.events disable trigger all; \
             alter table {schema}.events drop constraint events_content_type_check; \
             update {schema}.events set content_type = 77 where position = 3; \
             alter table {schema}.events enable trigger all"
        ),
    );
    let mut batches = store.read(Read::all());
    assert_eq!(batches.next().await.unwrap().unwrap().events.len(), 2);
    let corrupt = batches.next().await.unwrap().unwrap_err();
    assert!(matches!(corrupt, ReadError::Corrupt { .. }), "{corrupt}");
    let findings = store.verify().await.unwrap().findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
}

#[tokio::test]
async fn a_role_that_reads_can_verify_and_cannot_append() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let owner = PostgresStore::open_with(options.clone()).await.unwrap();
    owner.append(to("a", Any, "Written")).await.unwrap();
    let reader = role(&format!("reader_{schema}"), &options);
    server().psql(
        "postgres",
        &format!("select {schema}.grant_read('reader_{schema}')"),
    );
    let store = PostgresStore::open_with(reader).await.unwrap();
    assert_eq!(
        store
            .read(Read::all())
            .next()
            .await
            .unwrap()
            .unwrap()
            .events
            .len(),
        1
    );
    assert!(store.verify().await.unwrap().findings.is_empty());
    let refused = store.append(to("a", Any, "Never")).await.unwrap_err();
    assert!(refused.is_definitely_not_written());
}

#[tokio::test]
async fn people_read_json_and_streams_with_their_own_tools() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = PostgresStore::open_with(options).await.unwrap();
    for stream in ["b", "a", "a"] {
        store.append(to(stream, Any, "Written")).await.unwrap();
    }
    let streams = server().psql(
        "postgres",
        &format!("select stream, events from {schema}.streams"),
    );
    assert_eq!(streams.trim(), "a|2\nb|1");
    let data = server().psql(
        "postgres",
        &format!("select data from {schema}.events_json where position = 1"),
    );
    assert_eq!(data.trim(), "{}");
}
