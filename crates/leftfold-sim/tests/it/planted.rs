//! Bugs planted in the engine, each of which the simulation must find.

use leftfold_log::planted::{Planted, set};
use leftfold_sim::{
    CrashKind, Simulation,
    scenario::{ALL, crash_at_every_op},
};

const SEEDS_MAX: u64 = 20_000;

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
fn found_by_seed() -> Option<(u64, String)> {
    (0..SEEDS_MAX).find_map(|seed| {
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
        let (script, seed) = (found_by_script(), found_by_seed());
        println!(
            "{bug:?}: script {script:?}, seed {:?}",
            seed.as_ref().map(|(seed, _)| seed)
        );
        if let Some((_, broken)) = &seed {
            println!("    {broken:.160}");
        }
        if script.is_none() && seed.is_none() {
            missed.push(bug);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
