//! Bugs planted in the engine, each of which the simulation must find.

use std::ops::Range;

use leftfold_log::planted::{Planted, set};
use leftfold_sim::{
    CrashKind, Simulation, play_threads,
    scenario::{ALL, crash_at_every_op},
};

const SEEDS_MAX: u64 = 20_000;
/// Seeds before the scripts, which take longer.
const SEEDS_FIRST: u64 = 600;

const BUGS: &[Planted] = &[
    Planted::AckBeforeSync,
    Planted::NoDirectorySyncAtRoll,
    Planted::FailedSyncRetried,
    Planted::TailNotCopied,
    Planted::CopyNotSynced,
    Planted::CopyNameNotSynced,
    Planted::RecordUnchecked,
    Planted::ScanJumpsHole,
    Planted::RecentIdsForgotten,
    Planted::PublishedBeforeSync,
    Planted::MarkerBelieved,
    Planted::IndexNotSynced,
    Planted::RewriteNotSynced,
    Planted::OldRemovedBeforeNewIsDurable,
    Planted::HasAfterOffByOne,
    Planted::NamesKeptAtRoll,
    Planted::ChecksIgnored,
    Planted::AnsweredBeforeDurable,
    Planted::StalePrepared,
    Planted::SealedNotLedOn,
    Planted::RewrittenNotLedOn,
    Planted::FullDirectoryChangedNothing,
];

/// Turns a bug off again, also when a test fails.
struct Planting;

impl Planting {
    fn of(bug: Planted) -> Self {
        set(Some(bug));
        Self
    }
}

impl Drop for Planting {
    fn drop(&mut self) {
        set(None);
    }
}

/// The first seed that finds the bug.
fn found_by_seed(mut seeds: Range<u64>) -> Option<(u64, String)> {
    seeds.find_map(|seed| {
        let played = std::panic::catch_unwind(|| Simulation::of(seed).play());
        match played {
            Ok(Ok(())) => None,
            Ok(Err(broken)) => Some((seed, broken.to_string())),
            Err(_) => Some((seed, "panicked".into())),
        }
    })
}

fn found_by_script() -> Option<&'static str> {
    let finds = |script, loss| {
        std::panic::catch_unwind(|| crash_at_every_op(script, loss, None))
            .is_ok_and(|done| done.is_err())
    };
    ALL.iter()
        .find(|(_, script)| CrashKind::EVERY.iter().any(|&loss| finds(*script, loss)))
        .map(|(name, _)| *name)
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for &bug in BUGS {
        let _planted = Planting::of(bug);
        let by_seed = |seeds| {
            let (seed, broken) = found_by_seed(seeds)?;
            Some(format!("seed {seed}: {broken:.160}"))
        };
        let by_script = || found_by_script().map(|script| format!("script {script:?}"));
        let found = by_seed(0..SEEDS_FIRST)
            .or_else(by_script)
            .or_else(|| by_seed(SEEDS_FIRST..SEEDS_MAX));
        println!("{bug:?}: {found:?}");
        if found.is_none() {
            missed.push(bug);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Bugs that only threads can meet, and some of the others: whatever a thread does wrong, its callers must find.
const BUGS_OF_THREADS: &[Planted] = &[
    Planted::RollDoesNotWait,
    Planted::HandOverNotNotified,
    Planted::PanicLeavesQueueOpen,
    Planted::ViewReadBeforeLock,
    Planted::AckBeforeSync,
    Planted::PublishedBeforeSync,
    Planted::AnsweredBeforeDurable,
    Planted::StalePrepared,
    Planted::ChecksIgnored,
];

#[test]
fn every_planted_bug_of_the_threads_is_found() {
    let mut missed = Vec::new();
    for &bug in BUGS_OF_THREADS {
        let _planted = Planting::of(bug);
        let found = (0..SEEDS_MAX).find_map(|seed| {
            let broken = play_threads(seed).err()?;
            Some((seed, broken.to_string()))
        });
        println!("{bug:?}: {found:.200?}");
        if found.is_none() {
            missed.push(bug);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
