//! Conditions whose search takes long: no other append waits for it, and none is decided otherwise.
//!
//! **Owns:** these tests. **Does not know:** time; a lock in the function that searches stands for a long search.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, future::join};
use leftfold_model::{
    Append, AppendCondition, Conflict, EventType,
    ExpectedRevision::{Any, Exact, NoStream},
    Position, Query, QueryItem, Read, Revision, Tag,
};
use leftfold_postgres::{Connection, PostgresStore};
use leftfold_store::{AppendError, Delete, EventStore, Scavenge};
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    fixtures::{event, stream, to, types, until},
    server::{fresh, server},
};

/// Longer than anything takes that does not wait for the search.
const TOO_LONG: Duration = Duration::from_secs(30);
/// So many events have the tag `even`, and so many others the tag `odd`: more than a group may look at, and more in
/// all than a search compares with all items at once.
const EACH: usize = 600;

fn tags(names: &[&str]) -> Vec<Tag> {
    names.iter().map(|name| Tag::new(*name).unwrap()).collect()
}

fn item(types: &[&str], tags: &[&str]) -> QueryItem {
    let types = types.iter().map(|name| EventType::new(*name).unwrap());
    QueryItem::new(types, self::tags(tags)).unwrap()
}

fn conditional(append: Append, items: Vec<QueryItem>, after: u64) -> Append {
    let condition = AppendCondition {
        fail_if_match: Query::items(items).unwrap(),
        after: Position::new(after).into(),
    };
    append.with_condition(condition).unwrap()
}

/// An append with a condition that no event fails and that a group does not decide.
fn costly(name: &str, kind: &str) -> Append {
    conditional(to(name, Any, kind), vec![item(&[], &["even", "odd"])], 0)
}

/// A log in which the tags `even` and `odd` alternate and never meet, and `third` is at every third event.
async fn filled() -> (PostgresStore, String) {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = PostgresStore::open_with(options).await.unwrap();
    let events = (1..=2 * EACH).map(|position| {
        let mut names = vec![if position % 2 == 0 { "even" } else { "odd" }];
        names.extend((position % 3 == 0).then_some("third"));
        event("Common").with_tags(tags(&names)).unwrap()
    });
    let append = Append::to(stream("filled"), Any, events.collect()).unwrap();
    store.append(append).await.unwrap();
    (store, schema)
}

/// Keeps the search for events of `even` and `odd` from ending.
struct Gate {
    session: Connection,
    schema: String,
}

impl Gate {
    async fn closed(store: &PostgresStore, schema: &str) -> Self {
        let session = store.connection().await.unwrap();
        let gate = format!(
            "alter function {schema}.find_first(text[], text[], bigint, bigint) rename to find_first_at_once;
             create function {schema}.find_first(of_tags text[], of_types text[], lower bigint, upper bigint) returns bigint
             language plpgsql as $$
             declare
                 found bigint := {schema}.find_first_at_once(of_tags, of_types, lower, upper);
             begin
                 if of_tags = array['even', 'odd'] and upper > lower + 16 then
                     perform pg_advisory_xact_lock_shared(hashtext('{schema}'));
                 end if;
                 return found;
             end $$;
             select pg_advisory_lock(hashtext('{schema}'))"
        );
        session.batch_execute(&gate).await.unwrap();
        Self {
            session,
            schema: schema.to_owned(),
        }
    }

    /// Waits until so many searches wait for the gate.
    async fn searches(&self, count: usize) {
        let waiting = format!(
            "select count(*) from pg_stat_activity where wait_event = 'advisory' and query like '%{}%'",
            self.schema
        );
        let count = count.to_string();
        until(|| async { server().psql("postgres", &waiting).trim() == count }).await;
    }

    async fn open(self) {
        let unlock = format!("select pg_advisory_unlock(hashtext('{}'))", self.schema);
        self.session.batch_execute(&unlock).await.unwrap();
    }
}

type Appending = JoinHandle<Result<leftfold_model::Appended, AppendError>>;

fn spawn(store: &PostgresStore, append: Append) -> Appending {
    let store = store.clone();
    tokio::spawn(async move { store.append(append).await })
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(TOO_LONG, future)
        .await
        .expect("it waits for the search")
}

fn failed_at(outcome: Result<leftfold_model::Appended, AppendError>) -> Option<(usize, u64)> {
    match outcome {
        Ok(_) => None,
        Err(AppendError::Conflict(Conflict::ConditionFailed {
            condition,
            position,
        })) => Some((condition, position.get())),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_appends_are_acknowledged_while_a_condition_is_searched_for() {
    let (store, schema) = filled().await;
    let gate = Gate::closed(&store, &schema).await;
    let slow = spawn(&store, costly("slow", "Slow"));
    gate.searches(1).await;
    for n in 0..20 {
        in_time(store.append(to("quick", Any, "Quick")))
            .await
            .unwrap();
        let cheap = vec![item(&["Nobody"], &["even"])];
        let cheap = conditional(to(&format!("cheap-{n}"), NoStream, "Cheap"), cheap, 0);
        in_time(store.append(cheap)).await.unwrap();
    }
    assert!(!slow.is_finished());
    gate.open().await;
    let slow = slow.await.unwrap().unwrap();
    assert_eq!(slow.first.get(), 2 * EACH as u64 + 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_arrives_during_the_search_fails_the_condition() {
    let (store, schema) = filled().await;
    let gate = Gate::closed(&store, &schema).await;
    let slow = spawn(&store, costly("slow", "Slow"));
    gate.searches(1).await;
    let both = event("Both").with_tags(tags(&["even", "odd"])).unwrap();
    let both = Append::to(stream("both"), Any, vec![both]).unwrap();
    let both = in_time(store.append(both)).await.unwrap();
    gate.open().await;
    let failed = failed_at(slow.await.unwrap());
    assert_eq!(failed, Some((0, both.first.get())));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_repeated_during_its_search_is_written_once() {
    let (store, schema) = filled().await;
    let gate = Gate::closed(&store, &schema).await;
    let own = event("Both").with_tags(tags(&["even", "odd"])).unwrap();
    let append = Append::to(stream("own"), Any, vec![own]).unwrap();
    // Its own event fails the condition, so a repetition has to be recognised before.
    let append = conditional(append, vec![item(&[], &["even", "odd"])], 0);
    let first = spawn(&store, append.clone());
    gate.searches(1).await;
    let second = spawn(&store, append.clone());
    let (first, second) = {
        gate.open().await;
        (
            first.await.unwrap().unwrap(),
            second.await.unwrap().unwrap(),
        )
    };
    assert_eq!((first.first, first.repeated), (second.first, false));
    let third = store.append(append).await.unwrap();
    assert!(second.repeated && third.repeated);
    assert_eq!(types(&store).await.len(), 2 * EACH + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_to_one_stream_are_decided_in_their_order_although_the_first_is_searched_for() {
    let (store, schema) = filled().await;
    let gate = Gate::closed(&store, &schema).await;
    let name = stream("ordered");
    store.prepare(&name).await;
    let nth = |revision| to("ordered", Exact(Revision::new(revision)), "Later");
    let mut first = store.append(costly("ordered", "First"));
    assert!((&mut first).now_or_never().is_none());
    let mut second = store.append(nth(0));
    assert!((&mut second).now_or_never().is_none());
    gate.searches(1).await;
    let checked = to("beside", Any, "Beside")
        .with_check(name, Exact(Revision::new(1)))
        .unwrap();
    let beside = spawn(&store, checked);
    in_time(store.append(to("other", Any, "Other")))
        .await
        .unwrap();
    gate.open().await;
    let (first, second) = join(first, second).await;
    assert_eq!(first.unwrap().first.get(), 2 * EACH as u64 + 2);
    assert_eq!(second.unwrap().first.get(), 2 * EACH as u64 + 3);
    beside.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_caller_is_gone_and_one_whose_store_is_closed_are_written() {
    let (store, schema) = filled().await;
    let gate = Gate::closed(&store, &schema).await;
    let abandoned = spawn(&store, costly("a", "Abandoned"));
    let closing = spawn(&store, costly("b", "Closing"));
    gate.searches(2).await;
    abandoned.abort();
    let close = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    until(|| async { store.check().await.is_err() }).await;
    assert!(!close.is_finished() && !closing.is_finished());
    gate.open().await;
    close.await.unwrap().unwrap();
    closing.await.unwrap().unwrap();
    let options = fresh().with_schema(schema);
    let written = types(&PostgresStore::open_with(options).await.unwrap()).await;
    let mut written = written[2 * EACH..].to_vec();
    written.sort();
    assert_eq!(written, ["Abandoned", "Closing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_of_a_log_that_was_restored_meanwhile_proves_nothing() {
    let (store, schema) = filled().await;
    let gate = Gate::closed(&store, &schema).await;
    let slow = spawn(&store, costly("slow", "Slow"));
    gate.searches(1).await;
    // Another log: its end is gone, and an event that matches stands where one was searched that does not.
    let restore = format!(
        "set session_replication_role = replica;
         delete from {schema}.event_tags where position > 590;
         delete from {schema}.events where position > 590"
    );
    server().psql("postgres", &restore);
    let both = || event("Both").with_tags(tags(&["even", "odd"])).unwrap();
    let events = (0..20).map(|_| both()).collect();
    let other = PostgresStore::open_with(fresh().with_schema(&schema))
        .await
        .unwrap();
    in_time(other.append(Append::to(stream("both"), Any, events).unwrap()))
        .await
        .unwrap();
    gate.open().await;
    assert_eq!(failed_at(slow.await.unwrap()), Some((0, 591)));
}

/// The answer that the contract asks for: the first condition that fails, and the earliest event that fails it.
fn expected(log: &[(String, Vec<String>)], append: &Append) -> Option<(usize, u64)> {
    let matches = |condition: &AppendCondition, (kind, tags): &(String, Vec<String>)| {
        let Query::Items(items) = &condition.fail_if_match else {
            return true;
        };
        items.iter().any(|item| {
            let types = item.type_list();
            (types.is_empty() || types.iter().any(|it| it.as_str() == kind))
                && item
                    .tag_list()
                    .iter()
                    .all(|tag| tags.iter().any(|it| it == tag.as_str()))
        })
    };
    append
        .conditions()
        .iter()
        .enumerate()
        .find_map(|(index, condition)| {
            let after = usize::try_from(condition.after.seen_through().get()).unwrap();
            let found = log
                .iter()
                .skip(after)
                .position(|event| matches(condition, event))?;
            Some((index, (after + found + 1) as u64))
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn costly_conditions_are_decided_as_cheap_ones_before_and_after_a_scavenge() {
    let (store, _) = filled().await;
    let late = event("Late")
        .with_tags(tags(&["even", "odd", "third"]))
        .unwrap();
    store
        .append(Append::to(stream("late"), Any, vec![late, event("Last")]).unwrap())
        .await
        .unwrap();
    let mut log = Vec::new();
    let mut batches = store.read(Read::all());
    while let Some(batch) = batches.next().await {
        for event in batch.unwrap().events {
            let tags = event.tags.iter().map(|tag| tag.as_str().to_owned());
            log.push((event.event_type.to_string(), tags.collect::<Vec<_>>()));
        }
    }
    let queries = [
        vec![item(&[], &["even", "odd"])],
        vec![item(&["Common"], &["even", "odd"])],
        vec![item(&["Last", "Late"], &[]), item(&[], &["odd", "even"])],
        vec![
            item(&["Common"], &["even", "odd"]),
            item(&[], &["odd", "third"]),
        ],
        vec![
            item(&["Nobody"], &["even"]),
            item(&["Late"], &["third", "even"]),
        ],
    ];
    for erased in [false, true] {
        if erased {
            store
                .delete(Delete::stream(stream("filled"), Any))
                .await
                .unwrap();
            // The deletion is an event without tags of another type.
            log.push(("$metadata".to_owned(), Vec::new()));
            let mut progress = store.scavenge(Scavenge::default());
            while let Some(step) = progress.next().await {
                step.unwrap();
            }
        }
        for after in [0, 299, 600, 602] {
            for (first, second) in queries
                .iter()
                .flat_map(|a| queries.iter().map(move |b| (a, b)))
            {
                let append = conditional(to("never", Any, "Never"), first.clone(), after);
                let append = conditional(append, second.clone(), 10);
                let expected = expected(&log, &append);
                if expected.is_none() {
                    continue;
                }
                assert_eq!(
                    failed_at(store.append(append).await),
                    expected,
                    "{first:?} after {after}, then {second:?}; erased: {erased}"
                );
            }
        }
    }
}

/// Each search takes a while, and each time the others have appended something since.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_of_many_terms_is_decided_although_others_append_all_the_time() {
    let (store, _) = filled().await;
    let names: Vec<_> = (0..2_000).map(|n| format!("nobody-{n}")).collect();
    let one_by_one = names.iter().map(|name| item(&[], &[name])).collect();
    let types: Vec<_> = names.iter().take(200).map(String::as_str).collect();
    for (name, items) in [("tags", one_by_one), ("types", vec![item(&types, &[])])] {
        let many = spawn(&store, conditional(to(name, Any, "Many"), items, 0));
        let others = async {
            while !many.is_finished() {
                store.append(to("other", Any, "Other")).await.unwrap();
            }
        };
        in_time(others).await;
        many.await.unwrap().unwrap();
    }
}

/// What a function of the schema returns, and how often it looks something up in an index.
async fn lookups(store: &PostgresStore, schema: &str, call: &str) -> i64 {
    let client = store.connection().await.unwrap();
    client.batch_execute("begin").await.unwrap();
    let call = format!("select from {schema}.{call}");
    client.query(&call, &[]).await.unwrap();
    let count = format!(
        "select sum(pg_stat_get_xact_numscans(i.indexrelid))::bigint from pg_index i \
         where i.indrelid in ('{schema}.events'::regclass, '{schema}.event_tags'::regclass)"
    );
    let row = client.query_one(&count, &[]).await.unwrap();
    client.batch_execute("commit").await.unwrap();
    row.get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_looks_up_no_more_terms_than_events() {
    let (store, schema) = filled().await;
    let types = "(select array_agg('Nobody' || n)::text from generate_series(1, 256) n)";
    let tags = "array['even', 'odd', 'third', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'nobody']::text";
    for (types, tags) in [(types, "null::text"), ("null::text", tags)] {
        let of = |value: &str| format!("array_fill({value}, array[144])");
        let call = format!(
            "search({}, {}, {}, {}, {}, 144)",
            of("1"),
            of("0"),
            of("0::bigint"),
            of(types),
            of(tags)
        );
        let count = lookups(&store, &schema, &call).await;
        assert!(count < 1_000, "{count} lookups of {types} {tags}");
    }
}

/// Every combination of a few types and tags, beyond every third position.
#[tokio::test(flavor = "multi_thread")]
async fn new_events_match_as_they_do_in_a_search() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = PostgresStore::open_with(options).await.unwrap();
    for n in 0_usize..60 {
        let tags = tags(&["a", "b", "c"].map(|tag| tag)[..n % 4]);
        let kind = ["X", "Y", "Z"][n / 4 % 3];
        let event = event(kind)
            .with_tags(tags.into_iter().skip(n / 12 % 2))
            .unwrap();
        store
            .append(Append::to(stream("mixed"), Any, vec![event]).unwrap())
            .await
            .unwrap();
    }
    let compared = format!(
        "with i as (select a.after, t.types, g.tags from generate_series(0, 60, 3) a(after), \
           (values (null), ('{{X}}'), ('{{Y,Z}}'), ('{{W}}')) t(types), \
           (values (null), ('{{a}}'), ('{{b,a}}'), ('{{c,b}}'), ('{{d}}'), ('{{a,d}}')) g(tags) \
           where t.types is not null or g.tags is not null), \
         n as (select array_agg(i.after::bigint) afters, array_agg(i.types) types, array_agg(i.tags) tags from i), \
         c as (select u.*, {schema}.find_first(u.tags::text[], u.types::text[], greatest(u.after + 1, 21), 50) as searched \
           from n, unnest(n.afters, n.types, n.tags, \
             {schema}.find_new(n.afters, n.types, n.tags, 21, 50, 1000000)) u(after, types, tags, compared)) \
         select count(*), count(compared), count(*) filter (where compared is distinct from searched) from c"
    );
    let found = server().psql("postgres", &compared);
    let numbers: Vec<u32> = found
        .trim()
        .split('|')
        .map(|n| n.parse().unwrap())
        .collect();
    assert_eq!((numbers[0], numbers[2]), (21 * 23, 0), "{found}");
    assert!(numbers[1] > 50, "{found}");
    let too_many =
        format!("select {schema}.find_new(array[0, 0], '{{}}', '{{}}', 1, 60, 119) is null");
    assert_eq!(server().psql("postgres", &too_many).trim(), "t");
    store
        .delete(Delete::stream(stream("mixed"), Any))
        .await
        .unwrap();
    let steps: Vec<_> = store.scavenge(Scavenge::default()).collect().await;
    assert!(steps.iter().all(Result::is_ok));
    let erased = format!("select {schema}.find_new(array[0], '{{}}', '{{}}', 1, 60, 1000) is null");
    assert_eq!(server().psql("postgres", &erased).trim(), "t");
}
