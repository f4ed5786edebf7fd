//! Two processes with one listener: the one that acts is stopped beyond its lease, or killed.
//!
//! **Owns:** the story of SIGSTOP, SIGCONT and SIGKILL over PostgreSQL. **Does not know:** how claims work.
//! **Invariants:** every event is handled, and those of a stream in order; a process that wakes up behind its lease begins
//! nothing but what it was beginning when it was stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    process::{Child, Command},
    sync::Mutex,
    time::Duration,
};

use leftfold::{
    Aggregate, Event, HandlerError, Listener, Recorded, Store,
    stores::consumers::{ConsumerName, ConsumerStatus},
};
use leftfold_postgres::testing::Server;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

const STREAMS: u64 = 10;
const LEASE: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_secs(120);

#[derive(Event, Serialize, Deserialize)]
enum MeterEvent {
    #[event("MeterRead")]
    Read,
}

#[derive(Default)]
struct Meter;

impl Aggregate for Meter {
    const CATEGORY: &'static str = "meter";
    type Event = MeterEvent;
    fn apply(&mut self, _: &MeterEvent) {}
}

/// Writes a line for each event, with its own name.
struct Writer {
    name: String,
    file: Mutex<File>,
}

impl Listener for Writer {
    type Event = MeterEvent;
    const NAME: &'static str = "writer";

    async fn on(&self, event: &Recorded<MeterEvent>) -> Result<(), HandlerError> {
        let (name, stream, revision) = (&self.name, &event.stream, event.revision);
        let line = format!("{name} {stream} {revision}\n");
        let write = |mut file: &File| file.write_all(line.as_bytes());
        write(&*self.file.lock().map_err(|_| "broken")?)?;
        sleep(Duration::from_millis(2)).await;
        Ok(())
    }
}

/// The arguments of a child of this story.
pub(crate) fn arguments() -> Option<[String; 3]> {
    let mut given = env::args().skip_while(|arg| arg != "holder").skip(1);
    Some([given.next()?, given.next()?, given.next()?])
}

/// Runs the listener until the process ends.
pub(crate) fn child(address: &str, name: String, file: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let file = OpenOptions::new().append(true).open(file).unwrap();
    let ended = runtime.block_on(async {
        let store = Store::postgres(address).await.unwrap();
        let writer = Writer {
            name: name.clone(),
            file: Mutex::new(file),
        };
        let follow = store.follow(writer).parallel(4).lease(LEASE).holder(name);
        follow.spawn().ended().await
    });
    panic!("listener ended: {ended:?}");
}

/// A process with the listener. It is killed when this is dropped.
struct Holder {
    name: String,
    process: Child,
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Holder {
    fn start(address: &str, name: String, file: &Path) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["holder", address, &name]).arg(file);
        let process = command.spawn().unwrap();
        Self { name, process }
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid]);
        assert!(kill.status().unwrap().success(), "{signal}");
    }
}

/// What the processes wrote: who, which stream, which revision.
fn lines(file: &Path) -> Vec<(String, String, u64)> {
    let text = std::fs::read_to_string(file).unwrap();
    let line = |line: &str| {
        let mut parts = line.split(' ').map(str::to_owned);
        let (name, stream) = (parts.next().unwrap(), parts.next().unwrap());
        (name, stream, parts.next().unwrap().parse().unwrap())
    };
    text.lines().map(line).collect()
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(SOON, waiting).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn status(store: &Store) -> Option<ConsumerStatus> {
    let name = ConsumerName::new("writer").unwrap();
    store.event_store().consumers().status(&name).await.unwrap()
}

/// Appends until it is told to end, and returns how many events.
async fn produce(store: Store, ended: tokio::sync::watch::Receiver<bool>) -> u64 {
    let meters = store.repository::<Meter>();
    let mut count = 0;
    while !*ended.borrow() {
        let id = (count % STREAMS).to_string();
        meters.execute(&id, |_| MeterEvent::Read).await.unwrap();
        count += 1;
        sleep(Duration::from_millis(1)).await;
    }
    count
}

/// Stops or kills the process that acts, again and again, and checks what was handled.
pub(crate) async fn run(rounds: u32) {
    let server = Server::start();
    let address = server.database();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("handled.txt");
    File::create(&file).unwrap();
    let store = Store::postgres(&address).await.unwrap();
    let (end, ended) = tokio::sync::watch::channel(false);
    let producing = tokio::spawn(produce(store.clone(), ended));
    let start = |nth: u32| Holder::start(&address, format!("process-{nth}"), &file);
    let mut holders = vec![start(0), start(1)];
    let (mut stopped, mut killed) = (0, 0);
    for round in 0..rounds {
        let acting = acting(&store, &file).await;
        let index = holders
            .iter()
            .position(|holder| holder.name == acting)
            .unwrap();
        if round % 2 == 0 {
            stopped += u32::from(stop_beyond_its_lease(&store, &file, &holders[index]).await);
        } else {
            drop(holders.swap_remove(index));
            holders.push(start(round + 2));
            killed += 1;
        }
    }
    end.send_replace(true);
    let count = producing.await.unwrap();
    let handled = || {
        lines(&file)
            .into_iter()
            .map(|(_, stream, revision)| (stream, revision))
    };
    until("every event is handled", async || {
        handled().collect::<BTreeSet<_>>().len() as u64 == count
    })
    .await;
    drop(holders);
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    let mut repeated = 0;
    for (stream, revision) in handled() {
        let expected = next.entry(stream.clone()).or_default();
        assert!(
            revision <= *expected,
            "{stream}: {revision} before {expected}"
        );
        match revision == *expected {
            true => *expected += 1,
            false => repeated += 1,
        }
    }
    println!(
        "holders: {stopped} stopped beyond their lease, {killed} killed, {count} events, {repeated} repeated: ok"
    );
    assert!(
        stopped > 0 || rounds == 0,
        "no process was overtaken while it was stopped"
    );
    store.close().await.unwrap();
}

/// The process that has the claim and wrote last.
async fn acting(store: &Store, file: &Path) -> String {
    let before = lines(file).len();
    let looking = async {
        loop {
            let holder = status(store).await.and_then(|status| status.holder);
            let last = lines(file).into_iter().skip(before).last();
            match (holder, last) {
                (Some((holder, _)), Some((name, ..))) if holder == name => return name,
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let acting = timeout(SOON, looking).await;
    acting.expect("a process acts")
}

/// Stops a process until another one acts, wakes it up, and checks that it does nothing; `false` if the other one lost its claim
/// meanwhile, as on a machine that is too busy, so that nothing can be said.
async fn stop_beyond_its_lease(store: &Store, file: &Path, holder: &Holder) -> bool {
    holder.signal("STOP");
    // Where the lines of its successor begin.
    let successor_from = || {
        let written = lines(file);
        let last = written.iter().rposition(|(who, ..)| *who == holder.name);
        let from = last.map_or(0, |last| last + 1);
        (from < written.len()).then_some(from)
    };
    until("another process acts", async || successor_from().is_some()).await;
    let (from, before) = (successor_from().unwrap(), status(store).await);
    holder.signal("CONT");
    until("the successor goes on", async || {
        lines(file).len() > from + 100
    })
    .await;
    let term = |status: Option<ConsumerStatus>| status.map(|status| status.term);
    let is_same = term(before) == term(status(store).await);
    let written = lines(file);
    let late = written[from..]
        .iter()
        .filter(|(who, ..)| *who == holder.name);
    // What it was beginning when it was stopped may still be written.
    let (late, name) = (late.count(), &holder.name);
    assert!(
        !is_same || late <= 1,
        "{name} wrote {late} lines behind its lease"
    );
    is_same
}
