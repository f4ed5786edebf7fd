//! One measurement of one store, in a process of its own.
//!
//! **Owns:** [`Task`], [`Outcome`], and how each task is measured. **Does not know:** which tasks make the table.
//! **Invariants:** closed loop: a thread waits for each answer before it asks again; stalls count from the first append on,
//! rates after a short warm-up; memory is that of this process alone.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{
        self, COMMON_TYPE, Condition, Engine, Kind, Loaded, OLD_TYPE, RARE_TYPE, Shape, Writer,
    },
    machine,
};

/// Not counted in rates: the first segments and threads come to be.
const WARM_UP: Duration = Duration::from_millis(250);
/// One event in so many of a loaded log is of the rare type.
const RARE_ONE_IN: u64 = 10_000;

/// What to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "task")]
pub(crate) enum Task {
    /// Appends by this many threads for this long. `load_first`: events in the log before.
    Append {
        shape: Shape,
        threads: usize,
        seconds: f64,
        load_first: u64,
    },
    /// Loads a log by four threads: every account gets the same number of events, scattered over the log.
    Load {
        events: u64,
        accounts: u64,
        payload: usize,
        batch: u64,
    },
    /// Reads everything.
    Scan,
    /// Reads the events of accounts chosen at random.
    Read {
        accounts: u64,
        readers: usize,
        reads: u64,
        by: By,
        cold: bool,
        /// The memory, page cache included, that the process may use, if it is bound.
        memory_mib: Option<u64>,
    },
    /// One query by type; with an account's tag, many of them.
    Type { rare: bool, accounts: Option<u64> },
    /// One writer, one subscriber: from before the append to the arrival.
    Deliver { seconds: f64 },
    /// Opens the log and looks at memory.
    Open { cold: bool },
    /// Leaves the log open for this long, so that what it does in the background is done.
    Rest { seconds: f64 },
    /// Opens the log, appends, and dies without closing it.
    Die { appends: u64 },
}

/// What a read selects by.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum By {
    Tag,
    Stream,
}

/// What was measured. Times are in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) operations: u64,
    pub(crate) events: u64,
    pub(crate) seconds: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) longest: f64,
    pub(crate) cpu_seconds: f64,
    /// MiB resident right after opening, at the end, and at the highest.
    pub(crate) opened_mib: f64,
    pub(crate) resident_mib: f64,
    pub(crate) peak_mib: f64,
    /// Bytes of the directory when the store was closed.
    pub(crate) disk_bytes: u64,
}

/// Latencies of all threads, and what was counted after the warm-up.
struct Loop {
    nanos: Histogram<u64>,
    operations: u64,
    seconds: f64,
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 120_000_000_000, 3)?)
}

/// Runs `operation(thread)` in a closed loop on each thread until `stop` says so.
fn closed_loop<S: Send>(
    states: Vec<S>,
    enough: &(dyn Fn(u64, Duration) -> bool + Sync),
    warm_up: Duration,
    operation: &(dyn Fn(&mut S) -> anyhow::Result<()> + Sync),
) -> anyhow::Result<Loop> {
    let all = Mutex::new(Loop {
        nanos: histogram()?,
        operations: 0,
        seconds: 0.0,
    });
    let (done, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let start = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = states
            .into_iter()
            .map(|mut state| {
                let (all, done, failed) = (&all, &done, &failed);
                scope.spawn(move || -> anyhow::Result<()> {
                    let (mut nanos, mut counted) = (histogram()?, 0);
                    while !failed.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        if enough(done.load(Ordering::Relaxed), begun - start) {
                            break;
                        }
                        let result = operation(&mut state);
                        let took = begun.elapsed();
                        if let Err(error) = result {
                            failed.store(true, Ordering::Relaxed);
                            return Err(error);
                        }
                        nanos.saturating_record(u64::try_from(took.as_nanos())?);
                        done.fetch_add(1, Ordering::Relaxed);
                        counted += u64::from(begun - start >= warm_up);
                    }
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.nanos.add(nanos)?;
                    all.operations += counted;
                    Ok(())
                })
            })
            .collect();
        for worker in workers {
            worker
                .join()
                .map_err(|_| anyhow::anyhow!("a thread of the load panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.seconds = (start.elapsed() - warm_up.min(start.elapsed())).as_secs_f64();
    Ok(all)
}

impl Outcome {
    fn of(measured: &Loop, events_each: u64) -> Self {
        let micros = |quantile| nanos_to_micros(measured.nanos.value_at_quantile(quantile));
        Self {
            operations: measured.operations,
            events: measured.operations * events_each,
            seconds: measured.seconds,
            p50: micros(0.5),
            p99: micros(0.99),
            p999: micros(0.999),
            longest: nanos_to_micros(measured.nanos.max()),
            ..Self::default()
        }
    }

    fn timed(events: u64, took: Duration) -> Self {
        let micros = nanos_to_micros(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let seconds = took.as_secs_f64();
        Self {
            operations: 1,
            events,
            seconds,
            p50: micros,
            longest: micros,
            ..Self::default()
        }
    }
}

fn nanos_to_micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

/// Measures the task in this process.
pub(crate) fn run(kind: Kind, task: &Task, directory: &Path) -> anyhow::Result<Outcome> {
    machine::join_group()?;
    if let Task::Open { cold: true } = task {
        machine::forget_files(directory)?;
    }
    let warm = matches!(
        task,
        Task::Read { cold: false, .. } | Task::Scan | Task::Type { .. }
    );
    if warm {
        machine::read_files(directory)?;
    }
    let before = Instant::now();
    let engine =
        engine::open(kind, directory).with_context(|| format!("cannot open {}", kind.name()))?;
    let opening = before.elapsed();
    let opened_mib = machine::memory()?.0;
    let cpu = machine::cpu_seconds()?;
    let mut outcome = match task {
        Task::Append {
            shape,
            threads,
            seconds,
            load_first,
        } => appends(&*engine, shape, *threads, *seconds, *load_first)?,
        Task::Load {
            events,
            accounts,
            payload,
            batch,
        } => load(&*engine, *events, *accounts, *payload, *batch)?,
        Task::Scan => scan(&*engine)?,
        Task::Read {
            accounts,
            readers,
            reads,
            by,
            cold,
            ..
        } => {
            if *cold {
                machine::forget_files(directory)?;
            }
            read(&*engine, *accounts, *readers, *reads, *by)?
        }
        Task::Type { rare, accounts } => by_type(&*engine, *rare, *accounts)?,
        Task::Deliver { seconds } => deliver(&*engine, *seconds)?,
        Task::Open { .. } => Outcome::timed(0, opening),
        Task::Rest { seconds } => {
            thread::sleep(Duration::from_secs_f64(*seconds));
            Outcome::default()
        }
        Task::Die { appends } => {
            let shape = Shape {
                batch: 1,
                payload: 128,
                ..Shape::default()
            };
            let mut writer = Writer::new(1);
            for _ in 0..*appends {
                engine.append(&shape, &mut writer)?;
            }
            println!("{}", serde_json::to_string(&Outcome::default())?);
            std::process::abort();
        }
    };
    outcome.cpu_seconds = machine::cpu_seconds()? - cpu;
    let (resident, peak) = machine::memory()?;
    (outcome.opened_mib, outcome.resident_mib, outcome.peak_mib) = (opened_mib, resident, peak);
    engine.close()?;
    outcome.disk_bytes = machine::directory_bytes(directory)?;
    Ok(outcome)
}

fn appends(
    engine: &dyn Engine,
    shape: &Shape,
    threads: usize,
    seconds: f64,
    load_first: u64,
) -> anyhow::Result<Outcome> {
    if shape.condition == Condition::OldType {
        engine.load(
            &[Loaded {
                account: 0,
                event_type: OLD_TYPE,
            }],
            shape.payload,
        )?;
    }
    if load_first > 0 {
        load(engine, load_first, load_first / 20, shape.payload, 100)?;
    }
    let writers = (0..threads as u64)
        .map(|n| Writer::new(1_000_000_000 + n))
        .collect();
    let enough = |_, elapsed: Duration| elapsed.as_secs_f64() >= seconds + WARM_UP.as_secs_f64();
    let append = |writer: &mut Writer| {
        if writer.last == 0 && shape.condition == Condition::OldType {
            // The one event of that type is at the front of the log.
            writer.last = 1;
        }
        engine.append(shape, writer)
    };
    let measured = closed_loop(writers, &enough, WARM_UP, &append)?;
    Ok(Outcome::of(&measured, shape.batch as u64))
}

/// Four threads, different accounts in an append: neighbours in the log belong to different accounts.
fn load(
    engine: &dyn Engine,
    events: u64,
    accounts: u64,
    payload: usize,
    batch: u64,
) -> anyhow::Result<Outcome> {
    let next = AtomicU64::new(0);
    let batches = events.div_ceil(batch);
    let event = |n: u64| Loaded {
        // A stride without a common factor visits every account before it comes back to one.
        account: (n % accounts).wrapping_mul(7_919) % accounts,
        event_type: if n % RARE_ONE_IN == RARE_ONE_IN / 2 {
            RARE_TYPE
        } else {
            COMMON_TYPE
        },
    };
    let enough = |_, _| next.load(Ordering::Relaxed) >= batches;
    let one = |_: &mut ()| {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        if nth >= batches {
            return Ok(());
        }
        let first = nth * batch;
        let some: Vec<Loaded> = (first..(first + batch).min(events)).map(event).collect();
        engine.load(&some, payload)
    };
    let measured = closed_loop(vec![(); 4], &enough, Duration::ZERO, &one)?;
    Ok(Outcome {
        events,
        ..Outcome::of(&measured, batch)
    })
}

fn scan(engine: &dyn Engine) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let (events, bytes) = engine.scan()?;
    anyhow::ensure!(
        events > 0 && bytes > events,
        "the scan found {events} events of {bytes} bytes"
    );
    Ok(Outcome::timed(events, begun.elapsed()))
}

fn read(
    engine: &dyn Engine,
    accounts: u64,
    readers: usize,
    reads: u64,
    by: By,
) -> anyhow::Result<Outcome> {
    let seed = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_nanos() as u64;
    let readers = (0..readers as u64)
        .map(|n| Writer::new(seed ^ (n << 32)))
        .collect();
    let events = AtomicU64::new(0);
    let enough = |done, _| done >= reads;
    let one = |reader: &mut Writer| {
        let account = reader.chance() % accounts;
        let found = match by {
            By::Tag => engine.read_tag(account)?,
            By::Stream => engine.read_stream(account)?,
        };
        anyhow::ensure!(found > 0, "account {account} has no events");
        events.fetch_add(found, Ordering::Relaxed);
        Ok(())
    };
    let measured = closed_loop(readers, &enough, Duration::ZERO, &one)?;
    Ok(Outcome {
        events: events.into_inner(),
        ..Outcome::of(&measured, 0)
    })
}

fn by_type(engine: &dyn Engine, rare: bool, accounts: Option<u64>) -> anyhow::Result<Outcome> {
    let event_type = if rare { RARE_TYPE } else { COMMON_TYPE };
    let Some(accounts) = accounts else {
        let begun = Instant::now();
        let events = engine.read_type(event_type, None)?;
        anyhow::ensure!(events > 0, "no event of type {event_type}");
        return Ok(Outcome::timed(events, begun.elapsed()));
    };
    let events = AtomicU64::new(0);
    let enough = |done, _| done >= 5_000;
    let one = |reader: &mut Writer| {
        let account = reader.chance() % accounts;
        events.fetch_add(
            engine.read_type(event_type, Some(account))?,
            Ordering::Relaxed,
        );
        Ok(())
    };
    let measured = closed_loop(vec![Writer::new(7)], &enough, Duration::ZERO, &one)?;
    Ok(Outcome {
        events: events.into_inner(),
        ..Outcome::of(&measured, 0)
    })
}

/// One append at a time, about a thousand a second.
fn deliver(engine: &dyn Engine, seconds: f64) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let now = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut nanos = histogram()?;
    let count = (seconds * 1_000.0) as u64;
    let arrived = AtomicU64::new(0);
    thread::scope(|scope| {
        let subscriber = scope.spawn(|| {
            let mut missing = count;
            engine.follow(&mut |payload| {
                let stamp = engine::stamp(payload);
                if stamp > 0 {
                    nanos.saturating_record(now().saturating_sub(stamp));
                    missing -= 1;
                }
                arrived.fetch_add(1, Ordering::Relaxed);
                missing > 0
            })
        });
        let shape = Shape {
            batch: 1,
            payload: 128,
            ..Shape::default()
        };
        // The subscriber is known to listen when something arrives that does not count.
        while arrived.load(Ordering::Relaxed) == 0 {
            engine.append(&shape, &mut Writer::new(1))?;
            thread::sleep(Duration::from_millis(10));
        }
        for _ in 0..count {
            let mut writer = Writer {
                appends: now(),
                ..Writer::new(2)
            };
            engine.append(&shape, &mut writer)?;
            thread::sleep(Duration::from_micros(700));
        }
        subscriber
            .join()
            .map_err(|_| anyhow::anyhow!("the subscriber panicked"))?
    })?;
    let measured = Loop {
        operations: nanos.len(),
        nanos,
        seconds: start.elapsed().as_secs_f64(),
    };
    Ok(Outcome::of(&measured, 1))
}

/// Runs the task in a child process.
pub(crate) fn spawn(kind: Kind, task: &Task, directory: &Path) -> anyhow::Result<Outcome> {
    let program: PathBuf = std::env::current_exe()?;
    let bounded = match task {
        Task::Read {
            memory_mib: Some(mib),
            ..
        } => Some(machine::MemoryGroup::new(*mib)?),
        _ => None,
    };
    let mut command = std::process::Command::new(program);
    command
        .args(["child", kind.name(), &serde_json::to_string(task)?])
        .arg(directory)
        .stderr(std::process::Stdio::inherit());
    if let Some(group) = &bounded {
        command.env(machine::GROUP_VARIABLE, group.path());
    }
    let output = command.output()?;
    drop(bounded);
    let dies = matches!(task, Task::Die { .. });
    anyhow::ensure!(
        output.status.success() || dies,
        "{} failed in {task:?}",
        kind.name()
    );
    let text = String::from_utf8(output.stdout)?;
    serde_json::from_str(text.trim()).with_context(|| format!("{} answered {text:?}", kind.name()))
}
