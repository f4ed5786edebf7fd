//! Random histories of two tenants in one store, each compared with a store of its own.
//!
//! **Owns:** the rule that a tenant gets what it would get from a store of its own, apart from gaps between positions.
//! **Does not know:** the store under test. **Invariants:** every method of the contract takes part; the seed is
//! printed when the
//! rule fails, and taken from `LEFTFOLD_SEED`.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, AppendCondition, Appended, Conflict, EventId, ExpectedRevision, Position, Query, Read,
    RecordedEvent, Revision, Scope, StreamWrite, Timestamp,
};

use super::{
    Fixture,
    fixtures::{
        Store, category, event, exact, follow, of_tags, of_types, read, stream, tagged, to,
        try_read,
    },
    tenants::tenant,
};
use crate::{
    AppendError, Delete, ListStreams, MemoryStore, SavedSnapshot, StreamMetadata, Subscription,
    consumers::{
        Claim, ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, ListParked, ParkedEvent,
        Resolution, Timer,
    },
};

const STREAMS: [&str; 6] = ["a-1", "a-2", "b", "-odd", "$s-1", "@a/b"];
const STEPS: usize = 70;

/// A tenant, the store of its own that it is compared with, and the positions of its events.
struct Pair {
    tenant: Store,
    model: Store,
    /// The position in the shared store, for each position of the model.
    positions: Vec<u64>,
    earlier: Vec<Append>,
    claims: Option<(Claim, Claim)>,
}

impl Pair {
    fn to_model(&self, position: Position) -> u64 {
        let at = self.positions.partition_point(|&p| p < position.get());
        let exact = self.positions.get(at) == Some(&position.get());
        if exact { at as u64 + 1 } else { at as u64 }
    }

    async fn to_store(&self, model: u64) -> Position {
        let known = self.positions.len() as u64;
        match usize::try_from(model).unwrap() {
            0 => Position::START,
            at if model <= known => Position::new(self.positions[at - 1]),
            _ => Position::new(self.tenant.head().await.unwrap().get() + model - known),
        }
    }

    /// Notes the positions of what was appended; the model has as many events.
    async fn note(&mut self) {
        let from = self.positions.last().map_or(0, |last| last + 1);
        let new = read(&self.tenant, Read::all().from_position(Position::new(from))).await;
        self.positions.extend(new.iter().map(|e| e.position.get()));
        let head = self.model.head().await.unwrap().get();
        assert_eq!(self.positions.len() as u64, head, "events of the tenant");
    }

    fn appended(&self, result: Result<Appended, AppendError>, in_store: bool) -> String {
        let place = |position: Position| match in_store {
            true => self.to_model(position),
            false => position.get(),
        };
        match result {
            Ok(appended) => format!(
                "{} {} {:?} {}",
                place(appended.first),
                place(appended.last),
                appended.streams,
                appended.repeated
            ),
            Err(AppendError::Conflict(Conflict::ConditionFailed {
                condition,
                position,
            })) => {
                format!("condition {condition} fails at {}", place(position))
            }
            Err(AppendError::Conflict(Conflict::PartlyStored { id, position })) => {
                format!("{id} is at {}", place(position))
            }
            Err(error) => format!("{error:?}"),
        }
    }

    /// Events without what the store itself draws: times, and the ids of events that it adds.
    fn events(&self, events: Vec<RecordedEvent>, in_store: bool) -> Vec<RecordedEvent> {
        let same = |event: RecordedEvent| RecordedEvent {
            time: Timestamp::default(),
            position: match in_store {
                true => Position::new(self.to_model(event.position)),
                false => event.position,
            },
            id: match event.event_type.as_str().starts_with('$') {
                true => EventId::from_bytes([1; 16]),
                false => event.id,
            },
            ..event
        };
        events.into_iter().map(same).collect()
    }
}

/// Draws of what a tenant does.
struct Draws(fastrand::Rng);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.u64(..bound)
    }

    fn stream(&mut self) -> &'static str {
        STREAMS[usize::try_from(self.below(STREAMS.len() as u64)).unwrap()]
    }

    fn expected(&mut self) -> ExpectedRevision {
        match self.below(6) {
            0 => ExpectedRevision::NoStream,
            1 => ExpectedRevision::StreamExists,
            2 => exact(self.below(6)),
            _ => ExpectedRevision::Any,
        }
    }

    fn query(&mut self) -> Query {
        match self.below(5) {
            0 => Query::All,
            1 => of_types(&["$metadata", &format!("T{}", self.below(3))]),
            2 => of_tags(&[
                &format!("x:{}", self.below(3)),
                &format!("y:{}", self.below(2)),
            ]),
            3 => of_types(&[&format!("T{}", self.below(3))]),
            _ => of_tags(&[&format!("x:{}", self.below(4))]),
        }
    }

    fn writes(&mut self) -> Append {
        let writes = (0..=self.below(2)).map(|_| {
            let events = (0..=self.below(2)).map(|_| {
                let tags = [
                    format!("x:{}", self.below(3)),
                    format!("y:{}", self.below(2)),
                ];
                tagged(&format!("T{}", self.below(3)), &[&tags[0], &tags[1]])
            });
            let events = events.collect();
            StreamWrite {
                stream: stream(self.stream()),
                expected: self.expected(),
                events,
            }
        });
        let append = Append::new(writes.collect(), Vec::new()).unwrap();
        match self.below(4) {
            0 => append
                .with_check(stream(self.stream()), self.expected())
                .unwrap(),
            _ => append,
        }
    }

    fn scope(&mut self) -> Scope {
        match self.below(3) {
            0 => Scope::All,
            1 => Scope::Stream(stream(self.stream())),
            _ => {
                let names = ["a", "b", "-odd", "$s", "$$a", "$$", "@a/b", "none"];
                let nth = usize::try_from(self.below(names.len() as u64)).unwrap();
                Scope::Category(category(names[nth]))
            }
        }
    }
}

#[expect(
    clippy::print_stdout,
    reason = "shown when the rule fails: the history up to there"
)]
fn same<T: PartialEq + Debug>(ours: T, model: T, what: &impl Debug) {
    println!("{what:?}: {model:?}");
    assert_eq!(ours, model, "{what:?}");
}

/// Appends, sometimes an append that this or the other tenant made before.
async fn append(pair: &mut Pair, draws: &mut Draws, others: &[Append]) {
    let earlier = if draws.below(2) == 0 {
        &pair.earlier[..]
    } else {
        others
    };
    let append = if !earlier.is_empty() && draws.below(4) == 0 {
        earlier[usize::try_from(draws.below(earlier.len() as u64)).unwrap()].clone()
    } else {
        draws.writes()
    };
    let (mut ours, mut model) = (append.clone(), append.clone());
    if draws.below(3) == 0 {
        let (query, after) = (draws.query(), draws.below(pair.positions.len() as u64 + 2));
        let in_store = AppendCondition::new(query.clone(), pair.to_store(after).await);
        ours = ours.with_condition(in_store).unwrap();
        let condition = AppendCondition::new(query, Position::new(after));
        model = model.with_condition(condition).unwrap();
    }
    pair.tenant.prepare(&append.writes()[0].stream).await;
    let (ours, model) = (
        pair.tenant.append(ours).await,
        pair.model.append(model).await,
    );
    if model.is_ok() {
        pair.earlier.push(append.clone());
    }
    pair.note().await;
    let (ours, model) = (pair.appended(ours, true), pair.appended(model, false));
    // After its stream was deleted, a repetition is recognised as whole or as partly stored, by which lifecycles a store
    // remembers.
    if is_known(&ours) && is_known(&model) {
        return;
    }
    same(ours, model, &append);
}

/// Whether an outcome is that of an append whose events are stored already.
fn is_known(outcome: &str) -> bool {
    outcome.ends_with(" true") || outcome.contains(" is at ")
}

async fn change_life(pair: &mut Pair, draws: &mut Draws) {
    let name = stream(draws.stream());
    let (ours, model, what) = if draws.below(2) == 0 {
        let metadata = match draws.below(3) {
            0 => StreamMetadata::default().with_max_count(draws.below(4)),
            1 => StreamMetadata::default().with_truncate_before(Revision::new(draws.below(4))),
            _ => StreamMetadata::default().with_property("owner", "ann"),
        };
        let append = metadata.append_for(&name, ExpectedRevision::Any).unwrap();
        let ours = pair.tenant.append(append.clone()).await;
        (
            ours,
            pair.model.append(append.clone()).await,
            format!("{append:?}"),
        )
    } else {
        let delete = match draws.below(8) {
            0 => Delete::tombstone(name, draws.expected()),
            _ => Delete::stream(name, draws.expected()),
        };
        let ours = pair.tenant.delete(delete.clone()).await;
        (
            ours,
            pair.model.delete(delete.clone()).await,
            format!("{delete:?}"),
        )
    };
    pair.note().await;
    same(
        pair.appended(ours, true),
        pair.appended(model, false),
        &what,
    );
}

async fn look(pair: &mut Pair, draws: &mut Draws) {
    let mut wanted = Read::default();
    (wanted.scope, wanted.query) = (draws.scope(), draws.query());
    if draws.below(2) == 0 {
        wanted = wanted.backwards();
    }
    if draws.below(2) == 0 {
        wanted = wanted.limit(draws.below(6));
    }
    let (mut ours, mut model) = (wanted.clone(), wanted);
    match draws.below(3) {
        0 => {
            let from = draws.below(pair.positions.len() as u64 + 2);
            ours = ours.from_position(pair.to_store(from).await);
            model = model.from_position(Position::new(from));
        }
        1 if matches!(model.scope, Scope::Stream(_)) => {
            let revision = Revision::new(draws.below(8));
            (ours, model) = (ours.from_revision(revision), model.from_revision(revision));
        }
        _ => {}
    }
    let answers = (
        try_read(&pair.tenant, ours)
            .await
            .map_err(|e| format!("{e:?}")),
        try_read(&pair.model, model.clone())
            .await
            .map_err(|e| format!("{e:?}")),
    );
    let ours = answers.0.map(|events| pair.events(events, true));
    same(
        ours,
        answers.1.map(|events| pair.events(events, false)),
        &model,
    );
}

async fn list(pair: &mut Pair, draws: &mut Draws) {
    let prefixes = ["", "", "a", "$", "$$", "$$a", "-", "$$-", "$$-o", "@a/"];
    let nth = usize::try_from(draws.below(prefixes.len() as u64)).unwrap();
    let list = ListStreams {
        prefix: prefixes[nth].into(),
        after: (draws.below(2) == 0).then(|| stream(draws.stream())),
        limit: (draws.below(2) == 0).then(|| draws.below(4)),
    };
    let ours = pair
        .tenant
        .streams(list.clone())
        .try_concat()
        .await
        .unwrap();
    let model = pair.model.streams(list.clone()).try_concat().await.unwrap();
    let ours: Vec<_> = ours
        .iter()
        .map(|i| (&i.stream, i.events, i.revision, pair.to_model(i.position)))
        .collect();
    let model: Vec<_> = model
        .iter()
        .map(|i| (&i.stream, i.events, i.revision, i.position.get()))
        .collect();
    same(ours, model, &list);
    let name = stream(draws.stream());
    let ours = pair.tenant.stream_state(name.clone()).await.unwrap();
    same(
        ours,
        pair.model.stream_state(name.clone()).await.unwrap(),
        &name,
    );
}

async fn subscribe(pair: &mut Pair, draws: &mut Draws) {
    let after = draws.below(pair.positions.len() as u64 + 1);
    let query = draws.query();
    let in_store = Subscription::after(pair.to_store(after).await).matching(query.clone());
    let in_model = Subscription::after(Position::new(after)).matching(query.clone());
    let ours = follow(&pair.tenant, in_store, |d| d.caught_up).await;
    let model = follow(&pair.model, in_model, |d| d.caught_up).await;
    same(
        pair.events(ours, true),
        pair.events(model, false),
        &(after, query),
    );
}

async fn snapshot(pair: &mut Pair, draws: &mut Draws) {
    let name = stream(draws.stream());
    let (ours, model) = (pair.tenant.snapshots(), pair.model.snapshots());
    match draws.below(3) {
        0 => {
            let saved = SavedSnapshot {
                revision: Revision::new(draws.below(4)),
                position: Position::new(draws.below(9)),
                last_event: event("T").id(),
                fingerprint: [u8::try_from(draws.below(2)).unwrap(); 16],
                state: draws.below(1_000).to_string().into(),
            };
            ours.save(&name, saved.clone()).await.unwrap();
            model.save(&name, saved).await.unwrap();
        }
        1 => {
            ours.remove(&name).await.unwrap();
            model.remove(&name).await.unwrap();
        }
        _ => {}
    }
    same(
        ours.load(&name).await.unwrap(),
        model.load(&name).await.unwrap(),
        &name,
    );
}

fn words<T: Debug>(result: Result<T, ConsumerError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        // How long a claim still lasts depends on the moment.
        Err(ConsumerError::Held {
            consumer, holder, ..
        }) => format!("{consumer} held by {holder}"),
        Err(error) => format!("{error:?}"),
    }
}

fn change(draws: &mut Draws) -> ConsumerChange {
    match draws.below(4) {
        0 => ConsumerChange::Park(ParkedEvent {
            position: Position::new(1 + draws.below(3)),
            key: format!("k{}", draws.below(2)),
            reason: "refused".into(),
            attempts: 1,
            time: Timestamp::from_micros(draws.below(100)),
            resolution: None,
        }),
        1 => ConsumerChange::Unpark(Position::new(1 + draws.below(3))),
        2 => ConsumerChange::SetTimer(Timer {
            id: format!("t{}", draws.below(3)),
            due: Timestamp::from_micros(draws.below(100)),
            data: "data".into(),
        }),
        _ => ConsumerChange::CancelTimer(format!("t{}", draws.below(3))),
    }
}

async fn consume(pair: &mut Pair, draws: &mut Draws) {
    let name = ConsumerName::new(["mailer", "@a/mailer"][usize::from(draws.0.bool())]).unwrap();
    let (ours, model) = (pair.tenant.consumers(), pair.model.consumers());
    match draws.below(6) {
        0 => {
            let holder = ["h1", "h2"][usize::from(draws.0.bool())];
            let request = ClaimRequest::new(name.clone(), holder, Duration::from_secs(3_600));
            let answers = (ours.claim(&request).await, model.claim(&request).await);
            if let (Ok(ours), Ok(model)) = &answers {
                pair.claims = Some((ours.clone(), model.clone()));
            }
            same(words(answers.0), words(answers.1), &request);
        }
        1 | 2 => {
            let Some((in_store, in_model)) = &mut pair.claims else {
                return;
            };
            let to = Position::new(in_model.position.get() + draws.below(3));
            let changes: Vec<_> = (0..draws.below(3)).map(|_| change(draws)).collect();
            let answers = (
                ours.advance(in_store, to, changes.clone()).await,
                model.advance(in_model, to, changes.clone()).await,
            );
            same(words(answers.0), words(answers.1), &changes);
            same(&*in_store, &*in_model, &to);
            let renewed = ours.renew(in_store, Duration::from_secs(3_600)).await;
            let expected = model.renew(in_model, Duration::from_secs(3_600)).await;
            same(words(renewed), words(expected), &to);
        }
        3 => {
            if let Some((in_store, in_model)) = pair.claims.take() {
                let released = ours.release(&in_store).await;
                same(
                    words(released),
                    words(model.release(&in_model).await),
                    &name,
                );
            }
        }
        4 => {
            let to = Position::new(draws.below(5));
            let answers = (ours.reset(&name, to).await, model.reset(&name, to).await);
            same(words(answers.0), words(answers.1), &to);
        }
        _ => {
            let at = Position::new(1 + draws.below(3));
            let answers = (
                ours.resolve(&name, at, Resolution::Retry).await,
                model.resolve(&name, at, Resolution::Retry).await,
            );
            same(words(answers.0), words(answers.1), &at);
            let answers = (ours.remove(&name).await, model.remove(&name).await);
            same(words(answers.0), words(answers.1), &name);
        }
    }
    compare_consumers(pair, &name).await;
}

/// Compares all that can be read of a consumer, and the list of all.
async fn compare_consumers(pair: &Pair, name: &ConsumerName) {
    let (ours, model) = (pair.tenant.consumers(), pair.model.consumers());
    let all = ListParked::default();
    let now = Timestamp::from_micros(60);
    let parked = |mut events: Vec<ParkedEvent>| {
        events
            .iter_mut()
            .for_each(|e| e.time = Timestamp::default());
        events
    };
    same(
        parked(ours.parked(name, &all).await.unwrap()),
        parked(model.parked(name, &all).await.unwrap()),
        &name,
    );
    same(
        ours.due_timers(name, now, 9).await.unwrap(),
        model.due_timers(name, now, 9).await.unwrap(),
        &name,
    );
    let status = |status: crate::consumers::ConsumerStatus| {
        let holder = status.holder.map(|(holder, _)| holder);
        (
            status.consumer,
            status.position,
            status.term,
            holder,
            status.parked,
            status.timers,
        )
    };
    let listed = (
        ours.list(None).await.unwrap(),
        model.list(None).await.unwrap(),
    );
    let listed = (
        listed.0.into_iter().map(status).collect::<Vec<_>>(),
        listed.1.into_iter().map(status).collect::<Vec<_>>(),
    );
    same(listed.0, listed.1, name);
    same(
        ours.status(name).await.unwrap().map(status),
        model.status(name).await.unwrap().map(status),
        &name,
    );
}

async fn step(pair: &mut Pair, draws: &mut Draws, others: &[Append]) {
    match draws.below(12) {
        0..4 => append(pair, draws, others).await,
        4 => change_life(pair, draws).await,
        5..8 => look(pair, draws).await,
        8 => list(pair, draws).await,
        9 => subscribe(pair, draws).await,
        10 => snapshot(pair, draws).await,
        _ => consume(pair, draws).await,
    }
}

/// Prints the seed of a run that panics.
struct Seed(u64);

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "the seed repeats the run")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("LEFTFOLD_SEED={}", self.0);
        }
    }
}

pub async fn two_tenants_get_what_stores_of_their_own_would_give(fixture: &impl Fixture) {
    let seed = std::env::var("LEFTFOLD_SEED");
    let seed = seed.ok().and_then(|text| text.parse().ok());
    for seed in seed.map_or(0..8, |seed: u64| seed..seed + 1) {
        let seed = Seed(seed);
        let store = fixture.open().await;
        let mut draws = Draws(fastrand::Rng::with_seed(seed.0));
        let mut pairs = ["a", "a-"].map(|name| Pair {
            tenant: tenant(&store, name),
            model: Arc::new(MemoryStore::new()),
            positions: Vec::new(),
            earlier: Vec::new(),
            claims: None,
        });
        for _ in 0..STEPS {
            let [first, second] = &mut pairs;
            let (pair, other) = match draws.0.bool() {
                true => (first, second),
                false => (second, first),
            };
            step(pair, &mut draws, &other.earlier).await;
            if draws.below(8) == 0 {
                // A writer without a tenant, whose names are those of tenants.
                let events = vec![tagged("T1", &["x:1"])];
                store
                    .append(to("a-1", ExpectedRevision::Any, events))
                    .await
                    .unwrap();
            }
        }
        for pair in &pairs {
            let ours = pair.events(read(&pair.tenant, Read::all()).await, true);
            let model = pair.events(read(&pair.model, Read::all()).await, false);
            same(ours, model, &"everything");
            let stats = pair.tenant.stats().await.unwrap();
            assert_eq!(pair.to_model(stats.head), pair.positions.len() as u64);
        }
    }
}
