//! The rows of the table.
//!
//! **Owns:** which tasks are measured, on which stores, in which order. **Does not know:** how.
//! **Invariants:** within a row the stores alternate, run by run; rows that read share one loaded log per store.

use std::path::Path;

use crate::{
    engine::{Condition, Kind, Shape},
    machine,
    report::Report,
    task::{self, By, Outcome, Task},
};

/// What the caller wants of the table.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) quick: bool,
    pub(crate) only: Option<String>,
    pub(crate) runs: usize,
    pub(crate) stores: Vec<Kind>,
}

impl Selection {
    fn wants(&self, name: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    }

    fn stores(&self, of: &[Kind]) -> Vec<Kind> {
        of.iter()
            .copied()
            .filter(|kind| self.stores.is_empty() || self.stores.contains(kind))
            .collect()
    }
}

/// A row of appends: each run in a fresh directory.
struct AppendRow {
    name: String,
    shape: Shape,
    threads: usize,
    seconds: f64,
    load_first: u64,
    stores: Vec<Kind>,
}

const BOTH: &[Kind] = &[Kind::Leftfold, Kind::Tephra];

fn append_rows(quick: bool) -> Vec<AppendRow> {
    let mut rows = Vec::new();
    let seconds = if quick { 1.0 } else { 1.5 };
    let mut add = |name: String, shape: Shape, threads, in_quick: bool, stores: &[Kind]| {
        if !quick || in_quick {
            rows.push(AppendRow {
                name,
                shape,
                threads,
                seconds,
                load_first: 0,
                stores: stores.to_vec(),
            });
        }
    };
    let plain = |batch, payload| Shape {
        batch,
        payload,
        ..Shape::default()
    };
    let all = [Kind::Leftfold, Kind::Tephra, Kind::Redb, Kind::Sqlite];
    let with_raw = [
        Kind::Leftfold,
        Kind::Tephra,
        Kind::Redb,
        Kind::Sqlite,
        Kind::Raw,
    ];
    for (threads, stores) in [
        (1, &with_raw[..]),
        (8, &all[..]),
        (64, &all[..]),
        (256, BOTH),
    ] {
        add(
            format!("append 128 B, {threads} writers"),
            plain(1, 128),
            threads,
            threads < 256,
            stores,
        );
    }
    for threads in [1, 8, 64, 256] {
        let stores = if threads == 1 {
            &[Kind::Leftfold, Kind::Tephra, Kind::Raw][..]
        } else {
            BOTH
        };
        add(
            format!("append 256 B, {threads} writers"),
            plain(1, 256),
            threads,
            false,
            stores,
        );
    }
    for batch in [10, 100, 512] {
        for threads in [1, 8, 64] {
            let name = format!("append {batch} x 128 B, {threads} writers");
            add(
                name,
                plain(batch, 128),
                threads,
                batch == 100 && threads != 8,
                BOTH,
            );
        }
    }
    let conditions = [
        ("own tag", Condition::OwnTag),
        ("fresh tag", Condition::FreshTag),
        ("old type", Condition::OldType),
        ("exact revision", Condition::Revision),
    ];
    for (name, condition) in conditions {
        for threads in [1, 64] {
            let shape = Shape {
                condition,
                ..plain(1, 128)
            };
            add(
                format!("append if {name}, {threads} writers"),
                shape,
                threads,
                threads == 64,
                BOTH,
            );
        }
    }
    let fresh = Shape {
        fresh_tags: 2,
        ..plain(1, 128)
    };
    add(
        "append with two fresh tags, 64 writers".to_owned(),
        fresh,
        64,
        true,
        BOTH,
    );
    let streams = Shape {
        many_streams: true,
        ..plain(1, 128)
    };
    add(
        "append to a million streams, 64 writers".to_owned(),
        streams,
        64,
        true,
        BOTH,
    );
    if !quick {
        // Long enough for several files of each store to fill up and be replaced.
        for (name, shape) in [
            ("append 128 B, 64 writers, long", plain(1, 128)),
            (
                "append with two fresh tags, 64 writers, long",
                Shape {
                    fresh_tags: 2,
                    ..plain(1, 128)
                },
            ),
        ] {
            let (seconds, stores) = (12.0, BOTH.to_vec());
            rows.push(AppendRow {
                name: name.to_owned(),
                shape,
                threads: 64,
                seconds,
                load_first: 0,
                stores,
            });
        }
        for load_first in [1_000, 10_000_000] {
            let name = format!("append 128 B, 64 writers, behind {load_first} events");
            let stores = vec![Kind::Leftfold];
            rows.push(AppendRow {
                name,
                shape: plain(1, 128),
                threads: 64,
                seconds: 2.0,
                load_first,
                stores,
            });
        }
    }
    rows
}

/// Measures everything that was asked for.
pub(crate) fn run(
    selection: &Selection,
    directory: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    for row in append_rows(selection.quick) {
        if !selection.wants(&row.name) {
            continue;
        }
        let stores = selection.stores(&row.stores);
        let (shape, threads, seconds) = (row.shape.clone(), row.threads, row.seconds);
        let task = Task::Append {
            shape,
            threads,
            seconds,
            load_first: row.load_first,
        };
        let runs = match row.load_first {
            0 if row.seconds > 10.0 => selection.runs.min(3),
            0..=1_000 => selection.runs,
            _ => 1,
        };
        measure(
            &row.name,
            &task,
            &stores,
            runs,
            directory,
            Where::Fresh,
            report,
        )?;
    }
    delivery(selection, directory, report)?;
    reads(selection, directory, report)?;
    space(selection, directory, report)?;
    if !selection.quick {
        opening(selection, 10_000_000, directory, report)?;
    }
    Ok(())
}

/// Which directory a run of a row uses.
#[derive(Clone, Copy)]
enum Where {
    /// A new one, removed afterwards.
    Fresh,
    /// The store's own, loaded before.
    Loaded,
}

fn measure(
    name: &str,
    task: &Task,
    stores: &[Kind],
    runs: usize,
    directory: &Path,
    place: Where,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut outcomes: Vec<(Kind, Vec<Outcome>)> =
        stores.iter().map(|&kind| (kind, Vec::new())).collect();
    for _ in 0..runs {
        for (kind, outcomes) in &mut outcomes {
            let path = match place {
                Where::Fresh => directory.join("run"),
                Where::Loaded => directory.join(kind.name()),
            };
            outcomes.push(task::spawn(*kind, task, &path)?);
            if matches!(place, Where::Fresh) {
                std::fs::remove_dir_all(&path)?;
            }
        }
    }
    report.row(name, task, outcomes);
    Ok(())
}

/// Lets the stores' logs come to rest.
fn rest(stores: &[Kind], seconds: f64, directory: &Path) -> anyhow::Result<()> {
    for kind in stores {
        task::spawn(*kind, &Task::Rest { seconds }, &directory.join(kind.name()))?;
    }
    Ok(())
}

fn delivery(selection: &Selection, directory: &Path, report: &mut Report) -> anyhow::Result<()> {
    let name = "append to delivery, 1 writer";
    if !selection.wants(name) {
        return Ok(());
    }
    let task = Task::Deliver {
        seconds: if selection.quick { 0.5 } else { 1.5 },
    };
    measure(
        name,
        &task,
        &selection.stores(BOTH),
        selection.runs,
        directory,
        Where::Fresh,
        report,
    )
}

/// Rows that read a log in which each account has 20 events.
fn reads(selection: &Selection, directory: &Path, report: &mut Report) -> anyhow::Result<()> {
    let events = if selection.quick { 500_000 } else { 2_000_000 };
    let accounts = events / 20;
    let read = |readers, reads, by, cold| Task::Read {
        accounts,
        readers,
        reads,
        by,
        cold,
        memory_mib: None,
    };
    let warm = if selection.quick { 20_000 } else { 40_000 };
    let mut rows = vec![("scan".to_owned(), Task::Scan, true)];
    for (by, name) in [(By::Tag, "tag"), (By::Stream, "stream")] {
        for readers in [1, 8, 16] {
            let quick = readers < 16;
            rows.push((
                format!("read a {name} of 20, {readers} readers, warm"),
                read(readers, warm, by, false),
                quick,
            ));
        }
        for readers in [1, 8] {
            // Few enough that hardly any page is met twice.
            let reads = if readers == 1 { 500 } else { 800 };
            rows.push((
                format!("read a {name} of 20, {readers} readers, cold"),
                read(readers, reads, by, true),
                true,
            ));
        }
    }
    if machine::MemoryGroup::is_possible() {
        for readers in [1, 8] {
            let task = Task::Read {
                accounts,
                readers,
                reads: 4_000,
                by: By::Stream,
                cold: true,
                memory_mib: Some(96),
            };
            let name = format!("read a stream of 20, {readers} readers, memory of 96 MiB");
            rows.push((name, task, false));
        }
    }
    rows.push((
        "query by a rare type".to_owned(),
        Task::Type {
            rare: true,
            accounts: None,
        },
        true,
    ));
    rows.push((
        "query by a common type".to_owned(),
        Task::Type {
            rare: false,
            accounts: None,
        },
        false,
    ));
    rows.push((
        "query by type and tag".to_owned(),
        Task::Type {
            rare: false,
            accounts: Some(accounts),
        },
        false,
    ));
    rows.push((
        format!("open {events} events"),
        Task::Open { cold: false },
        true,
    ));
    rows.retain(|(name, _, quick)| selection.wants(name) && (*quick || !selection.quick));
    let loading = format!("load {events} events, 4 writers x 100 accounts");
    if rows.is_empty() && !selection.wants(&loading) {
        return Ok(());
    }
    // Loading the trees alone takes a quarter of the time that a short table has.
    let all = selection.stores(match selection.quick {
        true => BOTH,
        false => &[Kind::Leftfold, Kind::Tephra, Kind::Redb, Kind::Sqlite],
    });
    let load = |batch| Task::Load {
        events,
        accounts,
        payload: 128,
        batch,
    };
    let both = selection.stores(BOTH);
    measure(
        &loading,
        &load(100),
        &both,
        1,
        directory,
        Where::Loaded,
        report,
    )?;
    // Trees take larger transactions, or loading them takes longer than everything else here.
    let mut trees = all.clone();
    trees.retain(|kind| !BOTH.contains(kind));
    let loading = format!("load {events} events, 4 writers x 5000 accounts");
    measure(
        &loading,
        &load(5_000),
        &trees,
        1,
        directory,
        Where::Loaded,
        report,
    )?;
    rest(&all, 5.0, directory)?;
    let own =
        |name: &str| name.starts_with("query") || name.ends_with("cold") || name.contains("stream");
    for (name, task, _) in rows {
        let stores = if own(&name) {
            selection.stores(BOTH)
        } else {
            all.clone()
        };
        let runs = if name.ends_with("common type") {
            selection.runs.min(3)
        } else {
            selection.runs
        };
        measure(
            &name,
            &task,
            &stores,
            runs,
            directory,
            Where::Loaded,
            report,
        )?;
    }
    for kind in all {
        std::fs::remove_dir_all(directory.join(kind.name()))?;
    }
    Ok(())
}

/// What an event takes on the disk when stream, type and tag are always the same.
fn space(selection: &Selection, directory: &Path, report: &mut Report) -> anyhow::Result<()> {
    let name = "load 1000000 events of one stream, type and tag";
    if !selection.wants(name) {
        return Ok(());
    }
    let task = Task::Load {
        events: 1_000_000,
        accounts: 1,
        payload: 128,
        batch: 100,
    };
    let stores = selection.stores(BOTH);
    measure(name, &task, &stores, 1, directory, Where::Fresh, report)
}

/// Rows that open a large log over a million accounts.
fn opening(
    selection: &Selection,
    events: u64,
    directory: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    let clean = format!("open {events} events, clean");
    let killed = format!("open {events} events, after a kill");
    if !selection.wants(&clean) && !selection.wants(&killed) {
        return Ok(());
    }
    let stores = selection.stores(BOTH);
    let task = Task::Load {
        events,
        accounts: 1_000_000,
        payload: 128,
        batch: 100,
    };
    let loading = format!("load {events} events, a million accounts");
    measure(
        &loading,
        &task,
        &stores,
        1,
        directory,
        Where::Loaded,
        report,
    )?;
    rest(&stores, 20.0, directory)?;
    measure(
        "scan 10000000 events",
        &Task::Scan,
        &stores,
        1,
        directory,
        Where::Loaded,
        report,
    )?;
    measure(
        &clean,
        &Task::Open { cold: false },
        &stores,
        selection.runs,
        directory,
        Where::Loaded,
        report,
    )?;
    let mut outcomes: Vec<(Kind, Vec<Outcome>)> =
        stores.iter().map(|&kind| (kind, Vec::new())).collect();
    for _ in 0..selection.runs {
        for (kind, outcomes) in &mut outcomes {
            let path = directory.join(kind.name());
            task::spawn(*kind, &Task::Die { appends: 2_000 }, &path)?;
            outcomes.push(task::spawn(*kind, &Task::Open { cold: false }, &path)?);
        }
    }
    report.row(&killed, &Task::Open { cold: false }, outcomes);
    for kind in stores {
        std::fs::remove_dir_all(directory.join(kind.name()))?;
    }
    Ok(())
}
