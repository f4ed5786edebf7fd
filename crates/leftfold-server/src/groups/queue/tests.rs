//! Rules of the queue, and a model of it against random consumers.
//!
//! **Owns:** tests. **Does not know:** stores.

use std::{collections::BTreeMap, time::Duration};

use leftfold_model::{ContentType, EventType, RecordedEvent, Revision, StreamName};

use super::*;
use crate::groups::{ConsumerStrategy, DeliveredMessage, LinkTarget};

fn event(position: u64, stream: &str) -> RecordedEvent {
    RecordedEvent {
        position: Position::new(position),
        stream: StreamName::new(stream).unwrap(),
        revision: Revision::new(position - 1),
        id: id(position),
        event_type: EventType::new("Happened").unwrap(),
        content_type: ContentType::Json,
        data: "{}".into(),
        metadata: "".into(),
        tags: Vec::new(),
        time: Timestamp::from_micros(0),
    }
}

fn id(position: u64) -> EventId {
    EventId::derived(EventId::from_bytes([7; 16]), &position.to_le_bytes())
}

fn message(position: u64, stream: &str) -> Message {
    Message {
        original: event(position, stream),
        target: LinkTarget::NoLink,
        replayed: false,
    }
}

fn queue(settings: GroupSettings) -> (GroupQueue, Instant) {
    let now = Instant::now();
    (
        GroupQueue::new(settings, Position::START, HashMap::new(), now),
        now,
    )
}

fn settings(strategy: ConsumerStrategy) -> GroupSettings {
    GroupSettings {
        consumer_strategy: strategy,
        max_retry_count: 3,
        ..GroupSettings::default()
    }
}

fn sent(out: &[(ConsumerKey, DeliveredMessage)]) -> Vec<(ConsumerKey, u64)> {
    let place = |it: &DeliveredMessage| it.message.original.position.get();
    out.iter().map(|(key, it)| (*key, place(it))).collect()
}

fn parked(queue: &mut GroupQueue) -> Vec<ParkedEvent> {
    let progress = queue.progress(Position::START, Timestamp::from_micros(1));
    let parked = progress
        .changes
        .into_iter()
        .filter_map(|change| match change {
            ConsumerChange::Park(event) => Some(event),
            _ => None,
        });
    parked.collect()
}

#[test]
fn consumers_get_events_in_turn_as_far_as_their_windows_go() {
    let (mut queue, now) = queue(settings(ConsumerStrategy::RoundRobin));
    (1..=9).for_each(|at| queue.offer(message(at, "a")));
    queue.connect(1, 2, now);
    queue.connect(2, 3, now);
    let out = sent(&queue.dispatch(now));
    assert_eq!(out, [(1, 1), (2, 2), (1, 3), (2, 4), (2, 5)]);
    assert!(queue.dispatch(now).is_empty());
    queue.ack(&[id(3)], now);
    assert_eq!(sent(&queue.dispatch(now)), [(1, 6)]);
    assert_eq!(queue.checkpoint(), Position::START, "1 is not acknowledged");
    queue.ack(&[id(1), id(2)], now);
    assert_eq!(queue.checkpoint(), Position::new(3));
}

#[test]
fn one_consumer_gets_all_it_can_take_before_the_next_does() {
    let (mut queue, now) = queue(settings(ConsumerStrategy::DispatchToSingle));
    (1..=4).for_each(|at| queue.offer(message(at, "a")));
    queue.connect(1, 2, now);
    queue.connect(2, 9, now);
    assert_eq!(sent(&queue.dispatch(now)), [(1, 1), (1, 2), (2, 3), (2, 4)]);
}

#[test]
fn events_of_one_stream_go_to_one_consumer_and_a_full_one_holds_up_no_other() {
    let (mut queue, now) = queue(settings(ConsumerStrategy::Pinned));
    queue.connect(1, 2, now);
    queue.connect(2, 2, now);
    let streams: Vec<_> = (0..40).map(|n| format!("s-{n}")).collect();
    let mut position = 0;
    for _ in 0..3 {
        for stream in &streams {
            position += 1;
            queue.offer(message(position, stream));
        }
    }
    let mut owners: BTreeMap<String, ConsumerKey> = BTreeMap::new();
    let mut places: BTreeMap<String, u64> = BTreeMap::new();
    let mut delivered = 0;
    loop {
        let out = queue.dispatch(now);
        if out.is_empty() {
            break;
        }
        delivered += out.len();
        for (key, it) in out {
            let (stream, at) = (
                it.message.original.stream.to_string(),
                it.message.original.position,
            );
            assert_eq!(
                *owners.entry(stream.clone()).or_insert(key),
                key,
                "{stream}"
            );
            let before = places.insert(stream, at.get());
            assert!(before < Some(at.get()), "in order");
            queue.ack(&[it.message.original.id], now);
        }
    }
    assert_eq!(delivered, 120);
    assert_eq!(queue.checkpoint(), Position::new(120));
    assert!(owners.values().any(|key| *key == 1) && owners.values().any(|key| *key == 2));
}

#[test]
fn an_event_is_delivered_once_and_then_as_often_as_it_may_be_retried_before_it_is_parked() {
    let (mut queue, now) = queue(settings(ConsumerStrategy::RoundRobin));
    queue.offer(message(1, "a"));
    queue.offer(message(2, "a"));
    queue.connect(1, 1, now);
    for retries in 0..=3 {
        let out = queue.dispatch(now);
        assert_eq!((sent(&out), out[0].1.retries), (vec![(1, 1)], retries));
        queue.nack(1, &[id(1)], NackAction::Retry, "refused");
    }
    assert_eq!(sent(&queue.dispatch(now)), [(1, 2)]);
    let parked = parked(&mut queue);
    assert_eq!(
        (parked[0].position, parked[0].attempts),
        (Position::new(1), 4)
    );
    assert_eq!(parked[0].reason, "refused; retried 3 times");
    assert_eq!(queue.checkpoint(), Position::new(1));
}

#[test]
fn a_consumer_that_dies_of_an_event_parks_it_and_nothing_that_it_also_held() {
    let (mut queue, now) = queue(settings(ConsumerStrategy::RoundRobin));
    (1..=3).for_each(|at| queue.offer(message(at, "a")));
    for key in 1..=4 {
        queue.connect(key, 3, now);
        assert_eq!(queue.dispatch(now).len(), 3);
        queue.disconnect(key);
    }
    let parked = parked(&mut queue);
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].position, Position::new(1));
    assert!(
        parked[0].reason.contains("disconnected"),
        "{}",
        parked[0].reason
    );
    queue.connect(5, 3, now);
    assert_eq!(sent(&queue.dispatch(now)), [(5, 2), (5, 3)]);
}

#[test]
fn what_is_not_acknowledged_in_time_is_retried_and_a_late_acknowledgement_counts() {
    let (mut queue, now) = queue(settings(ConsumerStrategy::RoundRobin));
    queue.offer(message(1, "a"));
    queue.connect(1, 5, now);
    assert_eq!(queue.dispatch(now).len(), 1);
    let later = now + Duration::from_secs(31);
    assert!(queue.next_deadline().unwrap() < later);
    queue.expire(later);
    queue.ack(&[id(1), id(1), id(9)], later);
    assert!(queue.dispatch(later).is_empty(), "it is done with");
    assert_eq!(queue.checkpoint(), Position::new(1));
    queue.nack(1, &[id(1)], NackAction::Park, "late");
    assert!(!queue.has_changes(), "what is done with is not parked");
}

#[test]
fn parked_events_are_delivered_again_before_others_and_are_parked_until_they_are_acknowledged() {
    let (mut queue, now) = queue(settings(ConsumerStrategy::RoundRobin));
    queue.read_through(Position::new(5));
    queue.offer(message(6, "a"));
    let replayed = || Message {
        replayed: true,
        ..message(2, "a")
    };
    queue.replay(replayed());
    queue.replay(replayed());
    queue.connect(1, 1, now);
    assert_eq!(sent(&queue.dispatch(now)), [(1, 2)]);
    assert_eq!(queue.checkpoint(), Position::new(5));
    queue.ack(&[id(2)], now);
    let changes = queue
        .progress(Position::new(5), Timestamp::from_micros(1))
        .changes;
    assert_eq!(changes, [ConsumerChange::Unpark(Position::new(2))]);
    assert!(
        queue.replaying().contains(&Position::new(2)),
        "until it is written down"
    );
    queue.saved(&changes);
    assert!(queue.replaying().is_empty() && !queue.has_changes());
    assert_eq!(sent(&queue.dispatch(now)), [(1, 6)]);
}

#[test]
fn events_wait_while_too_many_behind_the_lowest_are_done_with() {
    let mut settings = settings(ConsumerStrategy::RoundRobin);
    settings.history_buffer_size = 50_000;
    let (mut queue, now) = queue(settings);
    let total = HOLES_MAX + 10;
    (1..=total).for_each(|at| queue.offer(message(at, "a")));
    queue.connect(1, 2, now);
    assert_eq!(queue.dispatch(now).len(), 2);
    let mut next = 2;
    while queue.messages.contains_key(&id(next)) {
        queue.ack(&[id(next)], now);
        if queue.dispatch(now).is_empty() {
            break;
        }
        next += 1;
    }
    assert_eq!(next, HOLES_MAX + 1);
    assert!(!queue.wants_more(usize::MAX));
    queue.ack(&[id(1)], now);
    assert_eq!(queue.dispatch(now).len(), 2);
}

#[test]
fn a_group_that_holds_its_share_of_memory_takes_no_more_until_events_are_done_with() {
    let now = Instant::now();
    let (mut queue, _) = queue(GroupSettings::default());
    assert!(queue.wants_more(1), "it holds nothing");
    queue.offer(message(1, "a"));
    assert!(!queue.wants_more(queue.bytes));
    queue.connect(1, 1, now);
    assert_eq!(queue.dispatch(now).len(), 1);
    queue.ack(&[id(1)], now);
    assert!(queue.wants_more(1));
}

/// What a random run has to keep, whatever consumers do.
struct Model {
    queue: GroupQueue,
    rng: fastrand_like::Rng,
    now: Instant,
    offered: u64,
    saved: Position,
    windows: BTreeMap<ConsumerKey, usize>,
    in_flight: BTreeMap<u64, ConsumerKey>,
    settled: BTreeSet<u64>,
    parked: BTreeSet<u64>,
    next_key: ConsumerKey,
}

mod fastrand_like {
    /// A small generator, so that a seed tells the run.
    pub(super) struct Rng(pub(super) u64);

    impl Rng {
        pub(super) fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % bound
        }
    }
}

impl Model {
    fn step(&mut self) {
        match self.rng.below(12) {
            0..=2 if self.queue.wants_more(usize::MAX) => {
                for _ in 0..self.rng.below(5) {
                    self.offered += 1;
                    let stream = format!("s-{}", self.rng.below(7));
                    self.queue.offer(message(self.offered, &stream));
                }
            }
            3 if self.windows.len() < 5 => {
                self.next_key += 1;
                let window = usize::try_from(self.rng.below(4) + 1).unwrap();
                self.queue.connect(self.next_key, window, self.now);
                self.windows.insert(self.next_key, window);
            }
            4 => {
                if let Some(key) = self.any_consumer() {
                    self.windows.remove(&key);
                    self.queue.disconnect(key);
                    self.in_flight.retain(|_, holder| *holder != key);
                }
            }
            5 => {
                self.now += Duration::from_secs(self.rng.below(20));
                self.queue.expire(self.now);
                self.in_flight = self.held();
            }
            6 => self.save(),
            7 => self.nack(),
            8 => {
                let strategy = usize::try_from(self.rng.below(4)).unwrap();
                self.queue.set(settings(ConsumerStrategy::ALL[strategy]));
            }
            _ => self.ack(),
        }
        self.dispatch();
        self.check();
    }

    fn any_consumer(&mut self) -> Option<ConsumerKey> {
        let count = u64::try_from(self.windows.len()).unwrap();
        let nth = (count > 0).then(|| self.rng.below(count))?;
        self.windows
            .keys()
            .nth(usize::try_from(nth).unwrap())
            .copied()
    }

    fn any_in_flight(&mut self) -> Option<(u64, ConsumerKey)> {
        let count = u64::try_from(self.in_flight.len()).unwrap();
        let nth = (count > 0).then(|| self.rng.below(count))?;
        let found = self.in_flight.iter().nth(usize::try_from(nth).unwrap());
        found.map(|(at, key)| (*at, *key))
    }

    fn held(&self) -> BTreeMap<u64, ConsumerKey> {
        let held = self
            .queue
            .messages
            .values()
            .filter_map(|tracked| match tracked.state {
                State::InFlight { consumer, .. } => {
                    Some((tracked.message.original.position.get(), consumer))
                }
                State::Waiting => None,
            });
        held.collect()
    }

    fn ack(&mut self) {
        if let Some((at, _)) = self.any_in_flight() {
            self.queue.ack(&[id(at)], self.now);
            self.in_flight.remove(&at);
            self.settled.insert(at);
        }
    }

    fn nack(&mut self) {
        let Some((at, key)) = self.any_in_flight() else {
            return;
        };
        let actions = [
            NackAction::Park,
            NackAction::Retry,
            NackAction::Skip,
            NackAction::Stop,
        ];
        let action = actions[usize::try_from(self.rng.below(4)).unwrap()];
        self.queue.nack(key, &[id(at)], action, "because");
        self.in_flight.remove(&at);
        if action == NackAction::Skip {
            self.settled.insert(at);
        }
    }

    fn dispatch(&mut self) {
        for (key, it) in self.queue.dispatch(self.now) {
            let at = it.message.original.position.get();
            assert!(!self.settled.contains(&at), "{at} was done with");
            assert!(it.retries <= 3, "{at} was retried too often");
            let other = self.in_flight.insert(at, key);
            assert_eq!(other, None, "{at} is in flight already");
        }
    }

    fn save(&mut self) {
        let progress = self.queue.progress(self.saved, Timestamp::from_micros(1));
        for change in &progress.changes {
            let ConsumerChange::Park(event) = change else {
                panic!("nothing was replayed")
            };
            assert!(!event.reason.is_empty());
            self.parked.insert(event.position.get());
        }
        assert!(progress.checkpoint >= self.saved);
        self.saved = progress.checkpoint;
        for at in 1..=self.saved.get() {
            let done = self.settled.contains(&at) || self.parked.contains(&at);
            assert!(done, "the checkpoint {} passed {at}", self.saved);
        }
        self.queue.saved(&progress.changes);
    }

    fn check(&self) {
        assert_eq!(self.in_flight, self.held());
        for (key, window) in &self.windows {
            let held = self.in_flight.values().filter(|holder| *holder == key);
            assert!(
                held.count() <= *window,
                "consumer {key} has more than {window}"
            );
        }
    }
}

#[test]
fn whatever_consumers_do_each_event_is_settled_once_and_the_checkpoint_passes_none_that_is_not() {
    let seed = std::env::var("LEFTFOLD_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seeds = match seed {
        Some(seed) => seed..seed + 1,
        None => 0..300,
    };
    for seed in seeds {
        println!("LEFTFOLD_SEED={seed}");
        let strategy = usize::try_from(seed % 4).unwrap();
        let (queue, now) = queue(settings(ConsumerStrategy::ALL[strategy]));
        let mut model = Model {
            queue,
            rng: fastrand_like::Rng(seed),
            now,
            offered: 0,
            saved: Position::START,
            windows: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            settled: BTreeSet::new(),
            parked: BTreeSet::new(),
            next_key: 0,
        };
        (0..400).for_each(|_| model.step());
        model.queue.connect(1_000, 3, model.now);
        model.windows.insert(1_000, 3);
        model.dispatch();
        while !model.in_flight.is_empty() {
            model.ack();
            model.dispatch();
        }
        model.save();
        assert!(model.queue.is_idle(), "seed {seed}");
        assert_eq!(model.saved, Position::new(model.offered), "seed {seed}");
        let all = model.settled.len() + model.parked.len();
        assert_eq!(u64::try_from(all).unwrap(), model.offered, "seed {seed}");
    }
}
