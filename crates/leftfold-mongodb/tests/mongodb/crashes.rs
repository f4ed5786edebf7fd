//! Servers that end in the middle, connections that are cut, peers that go silent, and rival processes.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use leftfold_model::{
    Append, AppendCondition, Direction, EventId, EventType, ExpectedRevision, NewEvent, Position,
    Query, QueryItem, Read, StreamName, Tag,
};
use leftfold_mongodb::{MongoOptions, MongoStore, testing::Server};
use leftfold_store::{AppendError, EventStore, ReadError, Subscription};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::server::fresh;

fn deposit(name: &str, id: EventId) -> Append {
    let event = NewEvent::json(EventType::new("Deposited").unwrap(), "{}").with_id(id);
    Append::to(
        StreamName::new(name).unwrap(),
        ExpectedRevision::Any,
        vec![event],
    )
    .unwrap()
}

async fn ids(store: &MongoStore) -> Vec<EventId> {
    let batches: Vec<_> = store.read(Read::all()).try_collect().await.unwrap();
    let events: Vec<_> = batches.into_iter().flat_map(|batch| batch.events).collect();
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.position, Position::new(index as u64 + 1));
    }
    events.into_iter().map(|event| event.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_the_middle_loses_and_doubles_nothing() {
    let mut server = Server::start();
    let options = server.fresh();
    let store = MongoStore::open_with(options.clone()).await.unwrap();
    let (ended, acknowledged) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let (store, ended, count) = (store.clone(), Arc::clone(&ended), Arc::clone(&acknowledged));
        writers.spawn(async move {
            let mut written = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let id = EventId::fresh();
                // Unknown outcomes and servers that are gone: the same append again, until its outcome is known.
                while store
                    .append(deposit(&format!("account-{writer}"), id))
                    .await
                    .is_err()
                {}
                written.push(id);
                count.fetch_add(1, Ordering::Relaxed);
            }
            written
        });
    }
    for _ in 0..3 {
        let before = acknowledged.load(Ordering::Relaxed);
        while acknowledged.load(Ordering::Relaxed) < before + 40 {
            tokio::task::yield_now().await;
        }
        server = tokio::task::spawn_blocking(move || {
            server.crash_and_restart();
            server
        })
        .await
        .unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    let written: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    let stored = ids(&MongoStore::open_with(options).await.unwrap()).await;
    assert_eq!(stored.len(), written.len());
    assert_eq!(
        stored.into_iter().collect::<HashSet<_>>(),
        written.into_iter().collect::<HashSet<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_cursor_the_server_closed_goes_on_behind_its_last_page() {
    // A page has 256 commits.
    const COMMITS: u64 = 300;
    let mut server = Server::start();
    let store = MongoStore::open_with(server.fresh()).await.unwrap();
    for _ in 0..COMMITS {
        let append = deposit("account-1", EventId::fresh());
        store.append(append).await.unwrap();
    }
    for read in [Read::all(), Read::all().backwards()] {
        let mut batches = store.read(read.clone());
        let mut events = batches.try_next().await.unwrap().unwrap().events;
        assert!(events.len() < usize::try_from(COMMITS).unwrap());
        server = tokio::task::spawn_blocking(move || {
            server.crash_and_restart();
            server
        })
        .await
        .unwrap();
        while let Some(batch) = batches.try_next().await.unwrap() {
            events.extend(batch.events);
        }
        let mut positions: Vec<u64> = events.iter().map(|event| event.position.get()).collect();
        if read.direction == Direction::Backwards {
            positions.reverse();
        }
        assert_eq!(positions, (1..=COMMITS).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_rival_processes_at_one_boundary_one_wins_each_round_and_subscribers_miss_nothing() {
    const ROUNDS: usize = 10;
    const RIVALS: usize = 4;
    let options = fresh();
    let mut stores = Vec::new();
    for _ in 0..RIVALS {
        stores.push(MongoStore::open_with(options.clone()).await.unwrap());
    }
    let query = |round: usize| {
        let tag = Tag::new(format!("seat:{round}")).unwrap();
        Query::items([QueryItem::tags([tag]).unwrap()]).unwrap()
    };
    let watcher = stores[0].clone();
    let watching = tokio::spawn(async move {
        let mut deliveries = watcher.subscribe(Subscription::default());
        let mut seen = Vec::new();
        while seen.len() < ROUNDS {
            seen.extend(deliveries.next().await.unwrap().unwrap().events);
        }
        seen
    });
    for round in 0..ROUNDS {
        let mut rivals = JoinSet::new();
        for (rival, store) in stores.iter().cloned().enumerate() {
            let query = query(round);
            rivals.spawn(async move {
                let tag = Tag::new(format!("seat:{round}")).unwrap();
                let event = NewEvent::json(EventType::new("SeatTaken").unwrap(), "{}")
                    .with_tags([tag])
                    .unwrap();
                let stream = StreamName::new(format!("rival-{rival}")).unwrap();
                let append = Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap();
                let condition = AppendCondition::new(query, Position::START);
                store
                    .append(append.with_condition(condition).unwrap())
                    .await
            });
        }
        let outcomes = rivals.join_all().await;
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "round {round}: {outcomes:?}");
    }
    let seen = watching.await.unwrap();
    let positions: Vec<u64> = seen.iter().map(|event| event.position.get()).collect();
    assert_eq!(positions, (1..=ROUNDS as u64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn rivals_without_conditions_all_get_through_with_dense_positions() {
    let options = fresh();
    let mut rivals = JoinSet::new();
    for rival in 0..4 {
        let store = MongoStore::open_with(options.clone()).await.unwrap();
        rivals.spawn(async move {
            for _ in 0..25 {
                let append = deposit(&format!("rival-{rival}"), EventId::fresh());
                store.append(append).await.unwrap();
            }
        });
    }
    rivals.join_all().await;
    let store = MongoStore::open_with(options).await.unwrap();
    assert_eq!(ids(&store).await.len(), 100);
}

/// What stands between a store and its server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Open,
    /// Takes what the store sends and passes nothing on, in neither direction.
    Silent,
    /// Passes on what the store sends, and cuts the connection instead of passing on the answer.
    CutsAnswers,
}

/// A proxy whose line can be changed while it runs. Returns its port.
async fn proxy(to: u16) -> (u16, tokio::sync::watch::Sender<Line>) {
    let (sender, line) = tokio::sync::watch::channel(Line::Open);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(pass(near, to, line.clone()));
        }
    });
    (port, sender)
}

async fn pass(mut near: TcpStream, to: u16, mut line: tokio::sync::watch::Receiver<Line>) {
    loop {
        let now = *line.borrow_and_update();
        match now {
            Line::Open => {
                let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else {
                    return;
                };
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => return,
                    _ = line.changed() => {}
                }
                let Line::CutsAnswers = *line.borrow() else {
                    continue;
                };
                let mut request = vec![0; 64 * 1024];
                let Ok(bytes) = near.read(&mut request).await else {
                    return;
                };
                let _ = far.write_all(&request[..bytes]).await;
                let mut answer = [0; 1];
                let _ = far.read(&mut answer).await;
                return;
            }
            Line::Silent => {
                let mut sink = vec![0; 4_096];
                tokio::select! {
                    read = near.read(&mut sink) => if !matches!(read, Ok(1..)) { return },
                    _ = line.changed() => return,
                }
            }
            Line::CutsAnswers => return,
        }
    }
}

/// A store of its own behind a proxy, with short time limits.
async fn behind_proxy(
    server: &Server,
) -> (MongoStore, MongoOptions, tokio::sync::watch::Sender<Line>) {
    let (port, line) = proxy(server.port().unwrap()).await;
    let direct = server.fresh();
    let options: MongoOptions = format!("mongodb://127.0.0.1:{port}/?directConnection=true")
        .parse()
        .unwrap();
    let options = options
        .with_database(direct.database())
        .with_operation_timeout(Duration::from_millis(300))
        .with_reconnect_timeout(Duration::from_secs(1));
    (MongoStore::open_with(options).await.unwrap(), direct, line)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_goes_silent_ends_every_call_with_an_error() {
    let server = Server::start();
    let (store, _, line) = behind_proxy(&server).await;
    store.append(deposit("a", EventId::fresh())).await.unwrap();
    line.send_replace(Line::Silent);
    let error = store
        .append(deposit("a", EventId::fresh()))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            AppendError::OutcomeUnknown { .. } | AppendError::Unavailable { .. }
        ),
        "{error:?}"
    );
    assert!(matches!(
        store.head().await,
        Err(ReadError::Unavailable { .. })
    ));
    assert!(matches!(
        store.check().await,
        Err(ReadError::Unavailable { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_whose_answer_is_lost_is_in_the_log_once_and_acknowledged() {
    let server = Server::start();
    let (store, direct, line) = behind_proxy(&server).await;
    let mut written = Vec::new();
    for _ in 0..5 {
        let id = EventId::fresh();
        let appending = store.append(deposit("a", id));
        line.send_replace(Line::CutsAnswers);
        let reopen = async {
            // The connection that the insert uses is cut; those after it work.
            tokio::time::sleep(Duration::from_millis(50)).await;
            line.send_replace(Line::Open);
        };
        let (mut outcome, ()) = tokio::join!(appending, reopen);
        while outcome.is_err() {
            outcome = store.append(deposit("a", id)).await;
        }
        written.push(id);
    }
    assert_eq!(
        ids(&MongoStore::open_with(direct).await.unwrap()).await,
        written
    );
}
