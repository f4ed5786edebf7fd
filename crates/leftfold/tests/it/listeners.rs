//! Listeners: order, repetition, parking, taking turns, and what must never happen whatever fails.
//!
//! **Owns:** the tests of `Store::follow`. **Does not know:** how events are handed out.
//! **Invariants:** a test waits for what it expects, never for time to pass.

use std::{
    collections::HashMap,
    future::{Future, pending, ready},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use leftfold::{
    Backoff, Follow, FollowError, HandlerError, Listener, ListenerHandle, ListenerState, Recorded,
    Start, Store,
    model::{Append, ContentType, EventType, ExpectedRevision, NewEvent, Position, StreamName},
    stores::consumers::{ClaimRequest, ConsumerName},
};
use tokio::time::{sleep, timeout};

use crate::account::{AccountEvent, BankAccount};

mod holders;
mod retries;

pub(crate) type Handled = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;
type Act = dyn Fn(&Recorded<AccountEvent>) -> Handled + Send + Sync;

/// Writes down what it handled, and does with each event what the test says.
pub(crate) struct Recorder {
    act: Box<Act>,
    log: Log,
}

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(String, u64)>>>);

impl Log {
    pub(crate) fn all(&self) -> Vec<(String, u64)> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn of(&self, id: &str) -> Vec<u64> {
        let all = self.all();
        all.iter()
            .filter(|(of, _)| of == id)
            .map(|(_, revision)| *revision)
            .collect()
    }
}

impl Listener for Recorder {
    type Event = AccountEvent;
    const NAME: &'static str = "recorder";

    async fn on(&self, event: &Recorded<AccountEvent>) -> Result<(), HandlerError> {
        (self.act)(event).await?;
        let entry = (event.aggregate_id().to_owned(), event.revision.get());
        self.log.0.lock().unwrap().push(entry);
        Ok(())
    }
}

pub(crate) fn recorder(
    store: &Store,
    act: impl Fn(&Recorded<AccountEvent>) -> Handled + Send + Sync + 'static,
) -> (Follow<Recorder>, Log) {
    let log = Log::default();
    let listener = Recorder {
        act: Box::new(act),
        log: log.clone(),
    };
    let quick = Backoff::default()
        .initial(Duration::from_millis(1))
        .attempts(3);
    (store.follow(listener).retry(quick), log)
}

pub(crate) fn fine(_: &Recorded<AccountEvent>) -> Handled {
    Box::pin(ready(Ok(())))
}

pub(crate) fn refused() -> Handled {
    Box::pin(ready(Err("the mail server refused".into())))
}

async fn deposit(store: &Store, id: &str) -> Position {
    let accounts = store.repository::<BankAccount>();
    let done = accounts.execute(id, |account| account.deposit(1)).await;
    done.unwrap().position.unwrap()
}

/// Appends a thousand deposits to one account at once.
async fn deposit_thousand(store: &Store, id: &str) {
    let event_type = EventType::new("DepositMade").unwrap();
    let event = |_| NewEvent::new(event_type.clone(), ContentType::Json, "{\"amount\":1}");
    let events = (0..1_000).map(event).collect();
    let stream = StreamName::new(format!("account-{id}")).unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, events).unwrap();
    store.event_store().append(append).await.unwrap();
}

pub(crate) async fn deposits(store: &Store, ids: impl IntoIterator<Item = &str>) -> Position {
    let mut last = Position::START;
    for id in ids {
        last = deposit(store, id).await;
    }
    last
}

pub(crate) async fn caught_up(listener: &ListenerHandle, position: Position) {
    let reached = timeout(Duration::from_secs(60), listener.wait_for(position)).await;
    reached.unwrap().unwrap();
}

pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) async fn parked(listener: &ListenerHandle) -> Vec<(u64, u32)> {
    let parked = listener.parked(Position::START).await.unwrap();
    parked
        .iter()
        .map(|e| (e.position.get(), e.attempts))
        .collect()
}

#[tokio::test]
async fn events_of_a_key_are_handled_in_order_and_each_once() {
    let store = Store::memory();
    let ids: Vec<String> = (0..40).map(|nth| format!("a{}", nth % 7)).collect();
    deposits(&store, ids.iter().map(String::as_str)).await;
    // The later an event of a key, the less its handler waits: out of order if anything were.
    let (follow, log) = recorder(&store, |event| {
        let pause = Duration::from_millis(6 - event.revision.get().min(6));
        Box::pin(async move {
            sleep(pause).await;
            Ok(())
        })
    });
    let listener = follow.parallel(8).spawn();
    let last = deposits(&store, ids.iter().map(String::as_str)).await;
    caught_up(&listener, last).await;
    let mut counts = HashMap::new();
    for (id, revision) in log.all() {
        let next = counts.entry(id).or_insert(0);
        assert_eq!(revision, *next);
        *next += 1;
    }
    assert_eq!(counts.values().sum::<u64>(), 80);
    let status = listener.status().await.unwrap();
    assert_eq!((status.handled, status.lag, status.parked), (80, 0, 0));
    listener.stop().await.unwrap();
}

#[tokio::test]
async fn a_listener_goes_on_behind_its_checkpoint_when_the_store_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let store = Store::open(directory.path()).await.unwrap();
        let (follow, log) = recorder(&store, fine);
        let listener = follow.spawn();
        let last = deposits(&store, ["ann", "ann"]).await;
        caught_up(&listener, last).await;
        assert_eq!(log.of("ann"), [2 * round, 2 * round + 1]);
        listener.stop().await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_start_now_passes_over_what_is_stored() {
    let store = Store::memory();
    deposits(&store, ["ann", "bob"]).await;
    let (follow, log) = recorder(&store, fine);
    let listener = follow.from(Start::Now).spawn();
    listener.started().await.unwrap();
    let last = deposit(&store, "ann").await;
    caught_up(&listener, last).await;
    assert_eq!(log.all(), [("ann".to_owned(), 1)]);
    drop(listener);
}

#[tokio::test]
async fn a_failed_attempt_and_a_panic_are_tried_again() {
    let store = Store::memory();
    let last = deposits(&store, ["ann", "bob"]).await;
    let tries = Mutex::new(HashMap::new());
    let (follow, log) = recorder(&store, move |event| {
        let mut tries = tries.lock().unwrap();
        let tried = tries.entry(event.position).or_insert(0);
        *tried += 1;
        match (*tried, event.aggregate_id()) {
            (1, "ann") => Box::pin(async { panic!("out of paper") }),
            (1..3, _) => refused(),
            _ => Box::pin(ready(Ok(()))),
        }
    });
    let listener = follow.spawn();
    caught_up(&listener, last).await;
    assert_eq!(log.all().len(), 2);
    assert_eq!(listener.status().await.unwrap().retries, 4);
    assert!(parked(&listener).await.is_empty());
    listener.stop().await.unwrap();
}

#[tokio::test]
async fn a_poison_event_parks_its_key_and_not_the_world() {
    let store = Store::memory();
    deposits(&store, ["ann", "bad", "ann", "bad"]).await;
    let others: Vec<String> = (0..300).map(|nth| format!("a{}", nth % 50)).collect();
    let last = deposits(&store, others.iter().map(String::as_str)).await;
    let cured = Arc::new(Mutex::new(false));
    let cure = Arc::clone(&cured);
    let (follow, log) = recorder(&store, move |event| {
        match event.aggregate_id() == "bad" && !*cured.lock().unwrap() {
            true => refused(),
            false => Box::pin(ready(Ok(()))),
        }
    });
    let listener = follow.parallel(4).spawn();
    caught_up(&listener, last).await;
    assert_eq!(log.all().len(), 302);
    until("both are parked", || async {
        parked(&listener).await.len() == 2
    })
    .await;
    let all = listener.parked(Position::START).await.unwrap();
    assert_eq!((all[0].attempts, all[1].attempts), (3, 0));
    assert_eq!(all[0].reason, "the mail server refused");
    assert_eq!(all[1].reason, "waits behind event 2 of its key");

    // Still broken: it fails again, and stays in front of what waits behind it.
    listener.retry(all[0].position).await.unwrap();
    until("retried in vain", || async {
        let parked = listener.parked(Position::START).await.unwrap();
        parked.len() == 2 && parked.iter().all(|event| event.resolution.is_none())
    })
    .await;
    assert!(log.of("bad").is_empty());

    *cure.lock().unwrap() = true;
    let late = deposit(&store, "bad").await;
    listener.retry(all[0].position).await.unwrap();
    caught_up(&listener, late).await;
    until("nothing is parked", || async {
        parked(&listener).await.is_empty()
    })
    .await;
    assert_eq!(log.of("bad"), [0, 1, 2]);
    let direct = deposit(&store, "bad").await;
    caught_up(&listener, direct).await;
    assert_eq!(log.of("bad"), [0, 1, 2, 3]);
    listener.stop().await.unwrap();
}

#[tokio::test]
async fn a_skipped_event_is_passed_over_and_those_behind_it_are_handled() {
    let store = Store::memory();
    let last = deposits(&store, ["ann", "ann", "ann"]).await;
    let (follow, log) = recorder(&store, |event| match event.revision.get() {
        0 => refused(),
        _ => Box::pin(ready(Ok(()))),
    });
    let listener = follow.spawn();
    caught_up(&listener, last).await;
    until("all are parked", || async {
        parked(&listener).await.len() == 3
    })
    .await;
    assert!(listener.skip(Position::new(9)).await.is_err());
    listener.skip(Position::FIRST).await.unwrap();
    until("nothing is parked", || async {
        parked(&listener).await.is_empty()
    })
    .await;
    assert_eq!(log.of("ann"), [1, 2]);
    listener.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_parked_stays_parked_in_the_next_run() {
    let store = Store::memory();
    let last = deposits(&store, ["bad", "bad"]).await;
    let (follow, _) = recorder(&store, |_| refused());
    let listener = follow.spawn();
    caught_up(&listener, last).await;
    listener.stop().await.unwrap();
    let (follow, log) = recorder(&store, fine);
    let listener = follow.spawn();
    let last = deposits(&store, ["bad", "ann"]).await;
    caught_up(&listener, last).await;
    assert_eq!(log.all(), [("ann".to_owned(), 0)]);
    until("three are parked", || async {
        parked(&listener).await.len() == 3
    })
    .await;
    listener.retry(Position::FIRST).await.unwrap();
    until("nothing is parked", || async {
        parked(&listener).await.is_empty()
    })
    .await;
    assert_eq!(log.of("bad"), [0, 1, 2]);
    listener.stop().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_never_returns_is_dropped_and_parked() {
    let store = Store::memory();
    let last = deposits(&store, ["bad", "ann"]).await;
    let (follow, log) = recorder(&store, |event| match event.aggregate_id() {
        "bad" => Box::pin(pending()),
        _ => Box::pin(ready(Ok(()))),
    });
    let once = Backoff::default().attempts(1);
    let listener = follow
        .retry(once)
        .timeout(Duration::from_millis(20))
        .spawn();
    caught_up(&listener, last).await;
    assert_eq!(log.all(), [("ann".to_owned(), 0)]);
    until("it is parked", || async {
        parked(&listener).await == [(1, 1)]
    })
    .await;
    let reason = listener
        .parked(Position::START)
        .await
        .unwrap()
        .remove(0)
        .reason;
    assert_eq!(reason, "handler timed out after 20ms");
    listener.stop().await.unwrap();
}

#[tokio::test]
async fn an_event_that_cannot_be_decoded_is_parked_under_its_stream() {
    let store = Store::memory();
    let event_type = EventType::new("DepositMade").unwrap();
    let foreign = NewEvent::new(event_type, ContentType::Json, "{\"amount\":\"much\"}");
    let stream = StreamName::new("account-odd").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, vec![foreign]).unwrap();
    store.event_store().append(append).await.unwrap();
    let last = deposit(&store, "ann").await;
    let (follow, log) = recorder(&store, fine);
    let listener = follow.spawn();
    caught_up(&listener, last).await;
    assert_eq!(log.all(), [("ann".to_owned(), 0)]);
    until("it is parked", || async {
        parked(&listener).await.len() == 1
    })
    .await;
    let event = listener.parked(Position::START).await.unwrap().remove(0);
    assert_eq!(event.key, "account-odd");
    assert!(
        event.reason.contains("cannot be decoded"),
        "{}",
        event.reason
    );
    listener.stop().await.unwrap();
}

#[tokio::test]
async fn a_listener_that_is_to_stop_names_the_event_and_goes_on_there_next_time() {
    let store = Store::memory();
    let last = deposits(&store, ["ann", "bad", "ann"]).await;
    let (follow, _) = recorder(&store, |event| match event.aggregate_id() {
        "bad" => refused(),
        _ => Box::pin(ready(Ok(()))),
    });
    let listener = follow.stop_on_failure().spawn();
    let ended = listener.wait_for(last).await.unwrap_err();
    let FollowError::Failed {
        stream,
        position,
        attempts,
        ..
    } = &ended
    else {
        panic!("{ended}");
    };
    assert_eq!(
        (stream.as_str(), position.get(), *attempts),
        ("account-bad", 2, 3)
    );
    assert!(
        ended
            .to_string()
            .ends_with("after 3 attempts: the mail server refused"),
        "{ended}"
    );
    // As after a deploy that mends the handler.
    let (follow, log) = recorder(&store, fine);
    let listener = follow.stop_on_failure().spawn();
    caught_up(&listener, last).await;
    assert_eq!(log.of("bad"), [0]);
    listener.stop().await.unwrap();
}

#[tokio::test]
async fn a_listener_with_too_many_parked_keys_stops_before_it_parks_another() {
    let store = Store::memory();
    let last = deposits(&store, ["a", "b", "c", "d"]).await;
    let (follow, _) = recorder(&store, |_| refused());
    let once = Backoff::default().attempts(1);
    let listener = follow.retry(once).stop_at_parked_keys(2).spawn();
    let ended = listener.wait_for(last).await.unwrap_err();
    let FollowError::TooManyParked { keys, position, .. } = ended else {
        panic!("{ended}");
    };
    assert_eq!((keys, position.get()), (2, 3));
}

#[tokio::test]
async fn a_listener_with_too_many_parked_keys_makes_room_as_operators_say_before_it_fails_again() {
    let store = Store::memory();
    let last = deposits(&store, ["a", "b", "c", "d"]).await;
    let once = || Backoff::default().attempts(1);
    let run = async || {
        let (follow, _) = recorder(&store, |_| refused());
        let listener = follow.retry(once()).stop_at_parked_keys(2).spawn();
        let ended = listener.wait_for(last).await.unwrap_err();
        let FollowError::TooManyParked { position, .. } = ended else {
            panic!("{ended}");
        };
        (listener, position.get())
    };
    let (listener, position) = run().await;
    assert_eq!(
        (position, parked(&listener).await),
        (3, vec![(1, 1), (2, 1)])
    );
    listener.skip(Position::FIRST).await.unwrap();
    drop(listener);
    let (listener, position) = run().await;
    assert_eq!(
        (position, parked(&listener).await),
        (4, vec![(2, 1), (3, 1)])
    );
}

#[tokio::test]
async fn a_poison_event_in_front_of_many_of_its_key_stops_reading_and_nothing_is_lost() {
    // More than are under way at a time, which wait behind the first one until it has failed.
    const EVENTS: u64 = 6_000;
    let store = Store::memory();
    for _ in 0..EVENTS / 1_000 {
        deposit_thousand(&store, "bad").await;
    }
    let last = Position::new(EVENTS);
    let cured = Arc::new(Mutex::new(false));
    let cure = Arc::clone(&cured);
    let (follow, log) = recorder(&store, move |_| match *cured.lock().unwrap() {
        true => Box::pin(ready(Ok(()))),
        false => refused(),
    });
    let listener = follow.pause_at_parked_events(10).spawn();
    until("it says that it waits", || async {
        let state = listener.status().await.unwrap().state;
        matches!(state, ListenerState::Waiting { reason } if reason.contains("events are parked"))
    })
    .await;
    let full = listener.status().await.unwrap();
    assert!((10..EVENTS).contains(&full.parked), "{}", full.parked);
    assert!(full.position < last, "it read on");
    until("they are listed", || async {
        !parked(&listener).await.is_empty()
    })
    .await;
    *cure.lock().unwrap() = true;
    listener.retry(Position::FIRST).await.unwrap();
    caught_up(&listener, last).await;
    until("nothing is parked", || async {
        parked(&listener).await.is_empty()
    })
    .await;
    assert_eq!(log.of("bad"), (0..EVENTS).collect::<Vec<_>>());
    listener.stop().await.unwrap();
}

/// A poison event in front of very many others costs them nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_event_in_front_of_a_hundred_thousand_parks_one() {
    const OTHERS: u64 = 100_000;
    let store = Store::memory();
    deposit(&store, "bad").await;
    for nth in 0..OTHERS / 1_000 {
        deposit_thousand(&store, &(nth % 10).to_string()).await;
    }
    let (follow, log) = recorder(&store, |event| match event.aggregate_id() {
        "bad" => refused(),
        _ => Box::pin(ready(Ok(()))),
    });
    let listener = follow.parallel(8).spawn();
    caught_up(&listener, Position::new(OTHERS + 1)).await;
    listener.stop().await.unwrap();
    assert_eq!(log.all().len() as u64, OTHERS);
    for key in 0..10 {
        let handled = log.of(&key.to_string());
        assert!(handled.is_sorted(), "account {key} is out of order");
    }
    let name = ConsumerName::new("recorder").unwrap();
    let status = store.event_store().consumers().status(&name).await.unwrap();
    assert_eq!(status.map(|status| status.parked), Some(1));
}

#[tokio::test]
async fn a_checkpoint_behind_the_end_of_a_restored_log_is_an_error_that_names_it() {
    let store = Store::memory();
    let last = deposits(&store, ["ann", "bob"]).await;
    let consumers = store.event_store().consumers();
    let name = ConsumerName::new("recorder").unwrap();
    let request =
        ClaimRequest::new(name.clone(), "before", Duration::ZERO).start(Position::new(900));
    consumers.claim(&request).await.unwrap();
    let (follow, log) = recorder(&store, fine);
    let ended = follow.spawn().ended().await.unwrap();
    assert!(ended.to_string().contains("checkpoint 900"), "{ended}");
    assert!(log.all().is_empty());
    consumers.reset(&name, Position::START).await.unwrap();
    let (follow, log) = recorder(&store, fine);
    let listener = follow.spawn();
    caught_up(&listener, last).await;
    assert_eq!(log.all().len(), 2);
    listener.stop().await.unwrap();
}

#[tokio::test]
async fn a_closed_store_ends_its_listeners_with_an_error() {
    let store = Store::memory();
    let (follow, _) = recorder(&store, fine);
    let listener = follow.spawn();
    listener.started().await.unwrap();
    store.close().await.unwrap();
    let ended = listener.ended().await.unwrap();
    assert!(matches!(ended, FollowError::Closed { .. }), "{ended}");
}

#[tokio::test]
async fn a_stopped_listener_waits_for_handlers_and_not_for_pauses() {
    let store = Store::memory();
    deposits(&store, ["bad", "slow", "bad"]).await;
    let (sender, mut receiver) = tokio::sync::mpsc::channel(9);
    let (follow, log) = recorder(&store, move |event| {
        let bad = event.aggregate_id() == "bad";
        let sender = sender.clone();
        Box::pin(async move {
            sender.send(()).await.unwrap();
            if bad {
                return Err("not now".into());
            }
            sleep(Duration::from_millis(20)).await;
            Ok(())
        })
    });
    let endless = Backoff::default()
        .initial(Duration::from_secs(3_600))
        .max(Duration::from_secs(3_600));
    let listener = follow.parallel(2).retry(endless).spawn();
    receiver.recv().await.unwrap();
    receiver.recv().await.unwrap();
    timeout(Duration::from_secs(60), listener.stop())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(log.all(), [("slow".to_owned(), 0)]);
    let (follow, log) = recorder(&store, fine);
    let listener = follow.spawn();
    caught_up(&listener, Position::new(3)).await;
    assert_eq!(log.of("bad"), [0, 1]);
    listener.stop().await.unwrap();
}
