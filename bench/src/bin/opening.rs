//! What it takes to open a log, and to read one whose events came in batches.
//!
//! **Owns:** the rows: logs of different ends, and a log of many segments without their indexes. **Does not know:** how the
//! engine recovers. **Invariants:** a log is written by one process, which ends without closing it where the row says so, and
//! opened by another, whose memory is that of the opening alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use leftfold_log::{Log, LogOptions};
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Read, StreamName, Tag};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Measures the opening of logs, and scans of events that came in batches.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// How often each row is measured.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

/// A part of a row, in a process of its own.
#[derive(Subcommand, Debug)]
enum Part {
    /// Writes a log.
    Write { path: PathBuf, kind: Kind },
    /// Opens a log and reads all of it, with so many descriptors.
    Open { path: PathBuf, descriptors: u64 },
}

/// What a log holds, and how its writer ended.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Small events, one an append.
    Small,
    /// Events of 16 MiB.
    Large,
    /// Appends of four events of 16 MiB.
    LargestAppends,
    /// Events with 64 tags, none of which comes twice.
    ManyTags,
    /// 1,200 segments without their indexes.
    Segments,
    /// A million events in appends of a hundred.
    Batches,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Small => "1,000,000 small events, killed",
            Self::Large => "40 events of 16 MiB, killed",
            Self::LargestAppends => "20 appends of 4 x 15 MiB, killed",
            Self::ManyTags => "40,000 events of 64 tags each, killed",
            Self::Segments => "1,200 segments without index, 256 descriptors",
            Self::Batches => "1,000,000 events in appends of 100",
        }
    }

    fn options(self) -> LogOptions {
        match self {
            Self::Segments => LogOptions::default()
                .with_segment_bytes(64 * 1024)
                .with_segment_events(100),
            _ => LogOptions::default(),
        }
    }

    fn write(self, path: &Path) -> anyhow::Result<()> {
        let log = Log::open(path, self.options())?;
        let event =
            |bytes: usize| anyhow::Ok(NewEvent::json(EventType::new("Noted")?, vec![b' '; bytes]));
        let append = |stream: u64, events: Vec<NewEvent>| {
            let stream = StreamName::new(format!("account-{}", stream % 1_000))?;
            log.append(Append::to(stream, ExpectedRevision::Any, events)?)?;
            anyhow::Ok(())
        };
        let (appends, events, bytes) = match self {
            Self::Small => (10_000, 100, 100),
            Self::Large => (40, 1, 16 << 20),
            Self::LargestAppends => (20, 4, 15 << 20),
            Self::ManyTags => (400, 100, 100),
            Self::Segments => (1_200, 100, 100),
            Self::Batches => (10_000, 100, 100),
        };
        for number in 0..appends {
            let events = (0..events).map(|nth| match self {
                Self::ManyTags => {
                    let tag = |tag| Tag::new(format!("t{number}-{nth}-{tag}"));
                    let tags = (0..64).map(tag).collect::<Result<Vec<_>, _>>()?;
                    anyhow::Ok(event(bytes)?.with_tags(tags)?)
                }
                _ => event(bytes),
            });
            append(number, events.collect::<anyhow::Result<_>>()?)?;
        }
        if matches!(self, Self::Segments | Self::Batches) {
            log.close()?;
        } else {
            // As a process that is killed: nothing is closed, and no thread ends in order.
            std::process::exit(0);
        }
        if matches!(self, Self::Segments) {
            remove_indexes(path)?;
        }
        Ok(())
    }
}

fn remove_indexes(path: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "idx") {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// Prints milliseconds of the opening, its highest memory in MiB, nanoseconds per event of a scan, events.
fn open(path: &Path, descriptors: u64) -> anyhow::Result<()> {
    let limit = Rlimit {
        current: Some(descriptors),
        maximum: Some(descriptors),
    };
    setrlimit(Resource::Nofile, limit)?;
    let begun = Instant::now();
    let log = Log::open(path, LogOptions::default())?;
    let opened = begun.elapsed();
    let memory = highest_memory()?;
    let begun = Instant::now();
    let mut events = 0_u64;
    let mut cursor = log.read(&Read::all())?;
    while let Some(batch) = cursor.next_refs()? {
        for event in batch.iter() {
            events += u64::from(!event?.data.is_empty());
        }
    }
    let each = begun.elapsed().as_nanos() / u128::from(events.max(1));
    println!("{} {memory} {each} {events}", opened.as_millis());
    Ok(())
}

fn highest_memory() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("no VmHWM")?.parse::<u64>()? / 1_024)
}

fn part(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?} failed: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn row(kind: Kind, runs: usize) -> anyhow::Result<()> {
    let (mut opened, mut memory, mut each, mut count) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let word = kind.to_possible_value().context("a kind has a word")?;
    for _ in 0..runs {
        let directory = tempfile::tempdir_in(Path::new("."))?;
        let path = directory.path().to_str().context("the path is no text")?;
        part(&["write", path, word.get_name()])?;
        let descriptors = if matches!(kind, Kind::Segments) {
            "256"
        } else {
            "1024"
        };
        let printed = part(&["open", path, descriptors])?;
        let figures: Vec<u64> = printed
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [ms, mib, ns, events] = figures[..] else {
            anyhow::bail!("unexpected figures: {printed}");
        };
        opened.push(ms);
        memory.push(mib);
        each.push(ns);
        count = events;
    }
    println!(
        "| {} | {count} | {} | {} | {} |",
        kind.name(),
        median(opened),
        median(memory),
        median(each)
    );
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Write { path, kind }) => kind.write(&path),
        Some(Part::Open { path, descriptors }) => open(&path, descriptors),
        None => {
            println!(
                "| log | events | open, ms | highest memory after it, MiB | scan, ns an event |"
            );
            println!("|---|---|---|---|---|");
            let kinds = Kind::value_variants().iter();
            kinds
                .copied()
                .try_for_each(|kind| row(kind, arguments.runs))
        }
    }
}
