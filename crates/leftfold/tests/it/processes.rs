//! Process managers: what they remember, send and wait for, each once, whatever is repeated.
//!
//! **Owns:** the tests of `Store::process`. **Does not know:** how reactions are committed.
//! **Invariants:** the clock is the test's; a test waits for what it expects, never for time to pass.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use leftfold::{
    Aggregate, AsOf, Backoff, CommandHandler, Event, HandlerError, ListenerHandle, Metadata,
    Process, Reaction, Recorded, Seen, Sent, Store,
    model::{Position, Revision, Timestamp},
    stores::{MemoryStore, consumers::ConsumerName},
    testing::GivenProcess,
};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::account::{AccountEvent, BankAccount};

mod beside_others;
mod killed;

const HOUR: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_secs(60);

#[derive(Event, Serialize, Deserialize, Debug, Clone, PartialEq)]
enum CareEvent {
    #[event("CareNoted")]
    Noted { amount: u64 },
    #[event("CareReminded")]
    Reminded,
}

/// Thanks and reminds the owners of accounts, as amounts say.
#[derive(Default, Debug, PartialEq)]
struct Care {
    noted: Vec<u64>,
    reminded: u32,
}

impl Aggregate for Care {
    const CATEGORY: &'static str = "care";
    type Event = CareEvent;

    fn apply(&mut self, event: &CareEvent) {
        match event {
            CareEvent::Noted { amount } => self.noted.push(*amount),
            CareEvent::Reminded => self.reminded += 1,
        }
    }
}

#[derive(Debug, PartialEq)]
enum Command {
    Thank { total: u64 },
}

impl Process for Care {
    type Sees = AccountEvent;
    type Command = Command;
    const NAME: &'static str = "care";

    fn route(event: &Recorded<AccountEvent>) -> Option<String> {
        let id = event.aggregate_id();
        (id != "nobody").then(|| id.to_owned())
    }

    fn react(&self, seen: Seen<'_, AccountEvent>) -> Reaction<CareEvent, Command> {
        let amount = match seen {
            Seen::Event(event) => match event.event {
                AccountEvent::DepositMade { amount } => amount,
                AccountEvent::WithdrawalMade { .. } => return Reaction::ignore(),
            },
            Seen::Timer(_) => {
                let total = self.noted.iter().sum();
                return Reaction::remember(CareEvent::Reminded).send(Command::Thank { total });
            }
        };
        let noted = Reaction::remember(CareEvent::Noted { amount });
        match amount {
            1 => noted.after("remind", HOUR),
            2 => noted.cancel("remind"),
            3 => noted.after("remind", HOUR * 2),
            4 => noted.send(Command::Thank {
                total: self.noted.len() as u64,
            }),
            5 => noted
                .after("remind", HOUR * 2)
                .send(Command::Thank { total: 5 }),
            6 => noted.at("remind", Timestamp::from_micros(1)),
            // A mistake: nothing is remembered by which a repetition would be recognized.
            99 => Reaction::ignore().send(Command::Thank { total: 99 }),
            _ => noted,
        }
    }
}

#[derive(Event, Serialize, Deserialize, Debug, Clone, PartialEq)]
enum ThanksEvent {
    #[event("Thanked")]
    Thanked { total: u64 },
}

#[derive(Default)]
struct Thanks;

impl Aggregate for Thanks {
    const CATEGORY: &'static str = "thanks";
    type Event = ThanksEvent;
    fn apply(&mut self, _: &ThanksEvent) {}
}

#[derive(Clone, Default)]
struct Thanker {
    keys: Arc<Mutex<Vec<String>>>,
    broken: Arc<AtomicBool>,
    /// Held by a test that keeps a command from ending.
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl CommandHandler<Command> for Thanker {
    async fn carry_out(&self, command: &Command, sent: &Sent) -> Result<(), HandlerError> {
        let Command::Thank { total } = *command;
        let _open = self.gate.lock().await;
        self.keys
            .lock()
            .map_err(|_| "broken")?
            .push(sent.key().to_owned());
        let thanks = sent.repository::<Thanks>();
        thanks
            .execute(sent.process_id(), |_| ThanksEvent::Thanked { total })
            .await?;
        match self.broken.load(Ordering::Relaxed) {
            true => Err("the post office is closed".into()),
            false => Ok(()),
        }
    }
}

/// A store whose clock, and that of its timers, is the test's.
struct World {
    store: Store,
    time: Arc<AtomicU64>,
    /// How often a process looked at the clock.
    looks: Arc<AtomicU64>,
    thanker: Thanker,
}

impl World {
    fn new() -> Self {
        let time = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&time);
        let now = move || Timestamp::from_micros(clock.load(Ordering::Relaxed));
        Self {
            store: Store::new(MemoryStore::with_clock(now)),
            time,
            looks: Arc::default(),
            thanker: Thanker::default(),
        }
    }

    fn set_time(&self, passed: Duration) {
        let micros = u64::try_from(passed.as_micros()).unwrap();
        self.time.store(1_000_000 + micros, Ordering::Relaxed);
    }

    fn spawn(&self) -> ListenerHandle {
        let (clock, looks) = (Arc::clone(&self.time), Arc::clone(&self.looks));
        let now = move || {
            looks.fetch_add(1, Ordering::Relaxed);
            Timestamp::from_micros(clock.load(Ordering::Relaxed))
        };
        let quick = Backoff::default()
            .initial(Duration::from_millis(1))
            .attempts(2);
        self.store
            .process::<Care, _>(self.thanker.clone())
            .timer_clock(now)
            .retry(quick)
            .parallel(16)
            .spawn()
    }

    /// Waits until the process has taken note of the time: a second look begins when the first one has ended.
    async fn looked(&self) {
        let seen = self.looks.load(Ordering::Relaxed);
        until("the process looks at its timers", async || {
            self.looks.load(Ordering::Relaxed) >= seen + 2
        })
        .await;
    }

    async fn deposit(&self, id: &str, amount: u64) -> Position {
        let accounts = self.store.repository::<BankAccount>();
        let done = accounts
            .execute(id, |account| account.deposit(amount))
            .await;
        done.unwrap().position.unwrap()
    }

    async fn care(&self, id: &str) -> Care {
        let loaded = self.store.repository::<Care>().load(id).await;
        loaded.unwrap().into_state()
    }

    async fn thanked(&self, id: &str) -> u64 {
        let loaded = self.store.repository::<Thanks>().load(id).await;
        loaded.unwrap().event_count()
    }

    async fn timers(&self) -> u64 {
        let name = ConsumerName::new("care").unwrap();
        let status = self.store.event_store().consumers().status(&name).await;
        status.unwrap().map_or(0, |status| status.timers)
    }

    /// Puts the checkpoint back to the first event, as a crash may put it back a little.
    async fn repeat_all(&self) {
        let name = ConsumerName::new("care").unwrap();
        let consumers = self.store.event_store().consumers();
        consumers.reset(&name, Position::START).await.unwrap();
    }
}

async fn reach(process: &ListenerHandle, position: Position) {
    let reached = timeout(SOON, process.wait_for(position)).await;
    reached.unwrap().unwrap();
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = timeout(SOON, waiting).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}

fn noted(amounts: &[u64], reminded: u32) -> Care {
    Care {
        noted: amounts.to_vec(),
        reminded,
    }
}

#[tokio::test]
async fn a_reaction_and_its_commands_are_committed_once_however_often_events_come() {
    let world = World::new();
    world.deposit("ann", 4).await;
    world.deposit("nobody", 4).await;
    let last = world.deposit("ann", 9).await;
    for _ in 0..3 {
        let process = world.spawn();
        reach(&process, last).await;
        process.stop().await.unwrap();
        world.repeat_all().await;
    }
    assert_eq!(world.care("ann").await, noted(&[4, 9], 0));
    assert_eq!(world.care("nobody").await, Care::default());
    assert_eq!(world.thanked("ann").await, 1);
    // It was sent each time, decided on the state before the reaction, under one key.
    let keys = world.thanker.keys.lock().unwrap().clone();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let thanks = world.store.events::<ThanksEvent>().collect().await.unwrap();
    assert_eq!(thanks[0].event, ThanksEvent::Thanked { total: 0 });
}

#[tokio::test]
async fn a_timer_fires_once_when_due_over_restarts_and_clocks_that_jump() {
    let world = World::new();
    let process = world.spawn();
    let set = world.deposit("ann", 1).await;
    reach(&process, set).await;
    until("the timer is kept", async || world.timers().await == 1).await;
    process.stop().await.unwrap();

    // Due while nothing runs; the clock then jumps back, so it is not due again.
    let process = world.spawn();
    process.started().await.unwrap();
    world.set_time(HOUR);
    until("the timer fires", async || {
        world.care("ann").await.reminded == 1
    })
    .await;
    until("the timer is gone", async || world.timers().await == 0).await;
    process.stop().await.unwrap();
    world.set_time(Duration::ZERO);
    world.repeat_all().await;
    let process = world.spawn();
    reach(&process, set).await;
    world.set_time(HOUR * 1_000);
    // What is handled again sets nothing that fired; a later timer fires behind it all.
    let again = world.deposit("bob", 1).await;
    reach(&process, again).await;
    world.set_time(HOUR * 2_000);
    until("the later timer fires", async || {
        world.care("bob").await.reminded == 1
    })
    .await;
    assert_eq!(world.care("ann").await, noted(&[1], 1));
    assert_eq!(
        (world.thanked("ann").await, world.thanked("bob").await),
        (1, 1)
    );
    process.stop().await.unwrap();
}

#[tokio::test]
async fn a_cancelled_timer_does_not_fire_and_a_moved_one_fires_when_it_says_last() {
    let world = World::new();
    world.deposit("ann", 1).await;
    world.deposit("ann", 2).await;
    world.deposit("bob", 1).await;
    let last = world.deposit("bob", 3).await;
    for passed in [Duration::ZERO, HOUR] {
        world.set_time(passed);
        let process = world.spawn();
        reach(&process, last).await;
        until("only the moved timer is kept", async || {
            world.timers().await == 1
        })
        .await;
        process.stop().await.unwrap();
        world.repeat_all().await;
    }
    assert_eq!(world.care("bob").await.reminded, 0);
    world.set_time(HOUR * 2);
    let process = world.spawn();
    until("the moved timer fires", async || {
        world.care("bob").await.reminded == 1
    })
    .await;
    until("the timer is gone", async || world.timers().await == 0).await;
    assert_eq!(world.care("ann").await, noted(&[1, 2], 0));
    process.stop().await.unwrap();
}

#[tokio::test]
async fn a_timer_that_is_moved_while_its_old_time_is_due_fires_at_its_new_time() {
    let world = World::new();
    let process = world.spawn();
    let set = world.deposit("ann", 1).await;
    reach(&process, set).await;
    until("the timer is kept", async || world.timers().await == 1).await;
    // The reaction that moves the timer is committed, and its command has not ended when the old time comes.
    let gate = world.thanker.gate.lock().await;
    world.deposit("ann", 5).await;
    until("the timer is moved", async || {
        world.care("ann").await.noted.len() == 2
    })
    .await;
    world.set_time(HOUR);
    world.looked().await;
    drop(gate);
    until("only the new time is kept", async || {
        world.thanked("ann").await == 1 && world.timers().await == 1
    })
    .await;
    assert_eq!(world.care("ann").await.reminded, 0);
    world.looked().await;
    world.set_time(HOUR * 2);
    until("the timer fires at its new time", async || {
        world.care("ann").await.reminded == 1
    })
    .await;
    until("no timer is left", async || world.timers().await == 0).await;
    process.stop().await.unwrap();
}

#[tokio::test]
async fn a_timer_that_is_set_to_a_time_at_which_it_fired_before_fires_again() {
    let world = World::new();
    let process = world.spawn();
    for times in 1..=3 {
        world.deposit("ann", 6).await;
        until("the timer fires", async || {
            world.care("ann").await.reminded == times
        })
        .await;
        until("no timer is left", async || world.timers().await == 0).await;
    }
    process.stop().await.unwrap();
    let last = world.store.event_store().head().await.unwrap();
    world.repeat_all().await;
    let process = world.spawn();
    reach(&process, last).await;
    world.looked().await;
    assert_eq!(world.care("ann").await, noted(&[6, 6, 6], 3));
    assert_eq!(world.timers().await, 0);
    process.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_timers_that_are_due_at_once_fire_once_each() {
    const PROCESSES: u64 = 10_000;
    let world = World::new();
    let mut last = Position::START;
    for nth in 0..PROCESSES {
        last = world.deposit(&format!("a{nth}"), 1).await;
    }
    let process = world.spawn();
    reach(&process, last).await;
    until("all are kept", async || world.timers().await == PROCESSES).await;
    world.set_time(HOUR);
    until("all fired", async || world.timers().await == 0).await;
    process.stop().await.unwrap();
    let events = world.store.events::<CareEvent>().collect().await.unwrap();
    let reminded = events
        .iter()
        .filter(|event| event.event == CareEvent::Reminded);
    assert_eq!(reminded.count() as u64, PROCESSES);
    assert_eq!(events.len() as u64, 2 * PROCESSES);
}

#[tokio::test]
async fn a_command_that_fails_is_sent_again_and_in_the_end_parks_its_process_alone() {
    let world = World::new();
    world.thanker.broken.store(true, Ordering::Relaxed);
    let failed = world.deposit("ann", 4).await;
    let process = world.spawn();
    reach(&process, failed).await;
    world.thanker.broken.store(false, Ordering::Relaxed);
    let last = world.deposit("bob", 4).await;
    reach(&process, last).await;
    assert_eq!(world.thanked("bob").await, 1);
    until("the event is parked", async || {
        process.parked(Position::START).await.unwrap().len() == 1
    })
    .await;
    process.retry(failed).await.unwrap();
    until("it is sent again", async || {
        process.status().await.unwrap().parked == 0
    })
    .await;
    assert_eq!(world.thanker.keys.lock().unwrap().len(), 4);
    assert_eq!(world.thanked("ann").await, 1);
    assert_eq!(world.care("ann").await, noted(&[4], 0));
    process.stop().await.unwrap();
}

#[tokio::test]
async fn a_reaction_that_sends_a_command_and_remembers_nothing_fails_by_name() {
    let world = World::new();
    let process = world.spawn();
    world.deposit("ann", 99).await;
    until("the event is parked", async || {
        process.parked(Position::START).await.unwrap().len() == 1
    })
    .await;
    let parked = process.parked(Position::START).await.unwrap();
    assert!(
        parked[0]
            .reason
            .contains("reaction has no event: 1 commands and 0 timers"),
        "{parked:?}"
    );
    assert_eq!(world.thanked("ann").await, 0);
    process.stop().await.unwrap();
    let failed = std::panic::catch_unwind(|| {
        GivenProcess::<Care>::nothing()
            .when_seeing("account-ann", AccountEvent::DepositMade { amount: 99 })
    });
    assert!(failed.is_err(), "the fixture fails as the process does");
}

#[tokio::test]
async fn correlation_and_causes_flow_from_event_to_process_to_command() {
    let world = World::new();
    let metadata = Metadata::new().correlation("visit-7").actor("ann");
    let accounts = world
        .store
        .repository::<BankAccount>()
        .with_metadata(metadata);
    let done = accounts
        .execute("ann", |account| account.deposit(4))
        .await
        .unwrap();
    let process = world.spawn();
    reach(&process, done.position.unwrap()).await;
    process.stop().await.unwrap();
    let seen = world
        .store
        .events::<AccountEvent>()
        .collect()
        .await
        .unwrap();
    let cared = world.store.events::<CareEvent>().collect().await.unwrap();
    let thanked = world.store.events::<ThanksEvent>().collect().await.unwrap();
    for metadata in [&cared[0].metadata, &thanked[0].metadata] {
        assert_eq!(metadata.correlation.as_deref(), Some("visit-7"));
        assert_eq!(metadata.actor, None);
    }
    assert_eq!(cared[0].metadata.causation, Some(seen[0].id.to_string()));
    assert_eq!(thanked[0].metadata.causation, Some(cared[0].id.to_string()));
}

#[tokio::test]
async fn what_a_process_knew_is_seen_at_any_moment() {
    let world = World::new();
    world.deposit("ann", 7).await;
    let last = world.deposit("ann", 9).await;
    let process = world.spawn();
    reach(&process, last).await;
    let cares = world.store.repository::<Care>();
    let then = cares
        .load_at("ann", AsOf::Revision(Revision::new(0)))
        .await
        .unwrap();
    assert_eq!(then.state().noted, [7]);
    process.stop().await.unwrap();
}

#[test]
fn a_process_is_tested_without_a_store() {
    let deposit = |amount| AccountEvent::DepositMade { amount };
    GivenProcess::<Care>::nothing()
        .sees("account-ann", deposit(1))
        .when_seeing("account-ann", deposit(4))
        .then([CareEvent::Noted { amount: 4 }])
        .then_sends([Command::Thank { total: 1 }]);
    GivenProcess::<Care>::nothing()
        .when_seeing("account-ann", deposit(1))
        .then([CareEvent::Noted { amount: 1 }])
        .then_sends([])
        .then_timer("remind", HOUR);
    GivenProcess::<Care>::nothing()
        .sees("account-ann", deposit(1))
        .when_due("remind")
        .then([CareEvent::Reminded])
        .then_sends([Command::Thank { total: 1 }]);
    GivenProcess::<Care>::nothing()
        .sees("account-ann", deposit(1))
        .when_seeing("account-ann", deposit(2))
        .then_cancels("remind");
    GivenProcess::<Care>::nothing()
        .when_seeing("account-ann", AccountEvent::WithdrawalMade { amount: 1 })
        .then_nothing();
    let failed = std::panic::catch_unwind(|| {
        GivenProcess::<Care>::nothing()
            .when_seeing("account-ann", deposit(1))
            .then_timer("remind", HOUR * 2)
    });
    assert!(failed.is_err(), "another time is another timer");
}
