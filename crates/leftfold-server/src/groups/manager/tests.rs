//! Many groups at once.
//!
//! **Owns:** that none starves and what all of them take. **Does not know:** wires; how events are stored.

use std::fs;

use leftfold_model::{
    Append, EventType, ExpectedRevision, NewEvent, Position, Read, Revision, StreamName,
    StreamWrite, limits::APPEND_EVENTS_MAX,
};
use leftfold_store::{MemoryStore, consumers::ConsumerName};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::groups::{
    ConsumerInfo, FilterError, FilterOn, FilterSpec, GroupName, GroupSettings, GroupStart,
};

const GROUPS: usize = 1_000;
const CONSUMERS_OF_EACH: usize = 10;
const EVENTS_OF_EACH: usize = 20;
const MIB: usize = 1024 * 1024;

/// Memory of this process; nothing where it cannot be known.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
    kib.unwrap_or(0_usize) * 1024
}

/// An event that a consumer took: group, consumer, revision.
type Taken = (usize, usize, Revision);

struct Crowd {
    store: Arc<dyn EventStore>,
    manager: Arc<GroupManager>,
    names: Vec<ConsumerName>,
    taken: Receiver<Taken>,
}

fn stream(group: usize) -> StreamName {
    StreamName::new(format!("account-{group}")).unwrap()
}

/// Takes and acknowledges whatever comes.
async fn consume(
    mut connection: Connection,
    (group, number): (usize, usize),
    taken_sender: Sender<Taken>,
) {
    while let Some(Ok(delivered)) = connection.deliveries.recv().await {
        let event = &delivered.message.original;
        connection.membership.ack(vec![event.id]).await;
        // The test is over.
        if taken_sender
            .send((group, number, event.revision))
            .await
            .is_err()
        {
            return;
        }
    }
}

impl Crowd {
    /// Groups of a stream each, with their consumers.
    async fn gather() -> Self {
        let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
        let ends = (TaskTracker::new(), CancellationToken::new());
        let memory = FilterMemory::new(|| |_| false);
        let manager = GroupManager::new(Arc::clone(&store), "127.0.0.1:1".into(), memory, ends);
        let catalog = GroupCatalog::new(Arc::clone(&store));
        let (taken_sender, taken) = channel(1_024);
        let mut definitions = Vec::with_capacity(GROUPS);
        for group in 0..GROUPS {
            let id = GroupId {
                source: GroupSource::Stream(stream(group)),
                name: GroupName::new("g").unwrap(),
            };
            let settings = GroupSettings {
                start: GroupStart::Start,
                min_checkpoint_count: 1,
                checkpoint_after_ms: 10,
                ..GroupSettings::default()
            };
            definitions.push(catalog.create(&id, settings, None).await.unwrap());
        }
        let mut names = Vec::with_capacity(GROUPS);
        for (group, definition) in definitions.iter().enumerate() {
            names.push(definition.consumer().unwrap());
            for number in 0..CONSUMERS_OF_EACH {
                let input = ConnectionInput {
                    info: ConsumerInfo::default(),
                    window: 2,
                };
                let joined = manager.connect(definition, input).await.unwrap();
                tokio::spawn(consume(joined, (group, number), taken_sender.clone()));
            }
        }
        Self {
            store,
            manager,
            names,
            taken,
        }
    }

    /// Appends to the streams of all groups, in as few appends as there can be: each wakes every group.
    async fn append(&self) {
        let groups: Vec<_> = (0..GROUPS).collect();
        for groups in groups.chunks(APPEND_EVENTS_MAX / EVENTS_OF_EACH) {
            let event = |_| NewEvent::json(EventType::new("Deposited").unwrap(), "{}");
            let writes = groups.iter().map(|group| StreamWrite {
                stream: stream(*group),
                expected: ExpectedRevision::Any,
                events: (0..EVENTS_OF_EACH).map(event).collect(),
            });
            let append = Append::new(writes.collect(), Vec::new()).unwrap();
            self.store.append(append).await.unwrap();
        }
    }

    /// Waits until everything is written down as done with.
    async fn checkpointed(&self) {
        for (group, name) in self.names.iter().enumerate() {
            let newest = Read::stream(stream(group)).backwards().limit(1);
            let newest = source_position(&*self.store, newest).await;
            loop {
                let status = self.store.consumers().status(name).await.unwrap().unwrap();
                assert_eq!(status.parked, 0, "{name:?}");
                if status.position >= newest {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn source_position(store: &dyn EventStore, read: Read) -> Position {
    use futures_util::TryStreamExt;
    let batch = store.read(read).try_next().await.unwrap().unwrap();
    batch.events[0].position
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_groups_with_ten_thousand_consumers_none_starves_and_all_stay_small() {
    let before = resident();
    let mut crowd = Crowd::gather().await;
    let idle = resident().saturating_sub(before);
    crowd.append().await;
    let head = crowd.store.head().await.unwrap();
    let mut seen = vec![[false; EVENTS_OF_EACH]; GROUPS];
    let mut served = vec![[0; CONSUMERS_OF_EACH]; GROUPS];
    for _ in 0..GROUPS * EVENTS_OF_EACH {
        let (group, number, revision) = crowd.taken.recv().await.unwrap();
        let revision = usize::try_from(revision.get()).unwrap();
        assert!(!seen[group][revision], "{revision} of {group} came twice");
        seen[group][revision] = true;
        served[group][number] += 1;
    }
    for (group, served) in served.iter().enumerate() {
        assert!(served.iter().all(|count| *count > 0), "{group}: {served:?}");
    }
    crowd.checkpointed().await;
    let busy = resident().saturating_sub(before);
    eprintln!("idle {} KiB, busy {} KiB", idle / 1024, busy / 1024);
    assert!(idle < 160 * MIB, "{} MiB", idle / MIB);
    assert!(busy < 256 * MIB, "{} MiB", busy / MIB);
    assert_eq!(
        crowd.store.head().await.unwrap(),
        head,
        "checkpoints are not appended"
    );
    crowd.manager.registry.stopping.cancel();
}

/// Bytes that are taken from a sum and given back to it.
struct Part(Arc<Mutex<usize>>, usize);

impl Part {
    fn into_take(mut self) -> impl FnMut(usize) -> bool {
        move |bytes| self.take(bytes)
    }

    fn take(&mut self, bytes: usize) -> bool {
        let mut free = lock(&self.0);
        let is_there = *free >= bytes;
        if is_there {
            *free -= bytes;
            self.1 += bytes;
        }
        is_there
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        *lock(&self.0) += self.1;
    }
}

fn lock(free: &Mutex<usize>) -> std::sync::MutexGuard<'_, usize> {
    free.lock().unwrap()
}

/// Groups of everything whose filters take memory, as many as a budget of this size lets run.
#[tokio::test]
async fn filters_of_groups_that_run_are_bounded_together_and_free_their_memory_when_they_end() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
    let free = Arc::new(Mutex::new(21 * MIB));
    let memory = FilterMemory::new({
        let free = Arc::clone(&free);
        move || Part(Arc::clone(&free), 0).into_take()
    });
    let manager = GroupManager::new(
        Arc::clone(&store),
        "127.0.0.1:1".into(),
        memory,
        (tasks.clone(), stopping.clone()),
    );
    let catalog = GroupCatalog::new(Arc::clone(&store));
    let expression = |n: usize| (Some(format!("^{n}\\w{{40}}$")), Vec::new());
    let prefixes = |n: usize| (None, vec![format!("{n:0>1000}"); 1_000]);
    for (name, most, filter) in [
        ("expression", 6, &expression as &dyn Fn(usize) -> _),
        ("prefixes", 24, &prefixes),
    ] {
        let mut joined = Vec::new();
        let refused = loop {
            assert!(joined.len() <= most, "{name}");
            let id = GroupId {
                source: GroupSource::All,
                name: GroupName::new(format!("{name}-{}", joined.len())).unwrap(),
            };
            let (regex, prefixes) = filter(joined.len());
            let on = FilterOn::Stream;
            let filter = FilterSpec {
                on,
                regex,
                prefixes,
            };
            let settings = GroupSettings::default();
            let definition = catalog.create(&id, settings, Some(filter)).await.unwrap();
            let input = ConnectionInput {
                info: ConsumerInfo::default(),
                window: 2,
            };
            match manager.connect(&definition, input).await {
                Ok(connection) => joined.push(connection),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(refused, GroupError::Filter(FilterError::Exhausted)),
            "{refused}"
        );
        assert!(!joined.is_empty(), "{name}");
        manager.restart().await;
        while *lock(&free) < 21 * MIB {
            tokio::task::yield_now().await;
        }
    }
    stopping.cancel();
    tasks.close();
    tasks.wait().await;
}
