//! A segment whose name never reached the disk, and what was derived while it was there.
//!
//! A failed sync of the directory forgets the name of a segment that was just made, but until the next power cut every
//! process sees it. An open must not seal the segment before it until that name is durable: after a power cut that segment is the
//! newest one again, and what is derived from it would tell of a segment that is missing.

use std::{collections::BTreeSet, sync::Arc};

use leftfold_log::{
    disk::{Disk, FileKind},
    verify,
};
use leftfold_model::Position;
use leftfold_sim::{CrashKind, Fault, Op, Rng, SimDisk};

use crate::small_log::{SEGMENT_EVENTS, append, open, read, try_open};

/// How many sealed segments lie before the one whose successor loses its name.
const BEFORE: u64 = 2;

/// The first positions of the segments.
fn segments(disk: &SimDisk) -> BTreeSet<Position> {
    let files = disk.contents().into_iter();
    let first = files.filter_map(|(name, _)| match name.kind() {
        FileKind::Segment { first, .. } if !name.is_temporary() => Some(first),
        _ => None,
    });
    first.collect()
}

/// Whether the newest segment has files as if it were sealed.
fn newest_looks_sealed(disk: &SimDisk) -> bool {
    let newest = segments(disk).pop_last().unwrap();
    let mut kinds = disk.contents().into_iter().map(|(name, _)| name.kind());
    kinds.any(|kind| match kind {
        FileKind::Locations { first, .. } => first == newest,
        FileKind::Index { last, .. } => last >= newest,
        _ => false,
    })
}

/// A log where a stop made a segment whose name was not synced, and how many events it holds.
fn stopped_with_an_unsynced_name() -> (SimDisk, u64) {
    let disk = SimDisk::new();
    let mut core = open(&disk);
    let mut events = 0;
    let mut next = |core: &mut _| {
        append(core, events).unwrap();
        events += 1;
    };
    while segments(&disk).len() as u64 <= BEFORE {
        next(&mut core);
    }
    // One less than fills the segment, so that it can hold another later.
    (2..SEGMENT_EVENTS).for_each(|_| next(&mut core));
    while core.maintain().unwrap() {}
    disk.fail(Some(Fault::io(Op::SyncDir, 1)));
    core.close().unwrap();
    disk.restart(CrashKind::Killed, &mut Rng::of(0));
    assert_eq!(segments(&disk).len() as u64, BEFORE + 2);
    (disk, events)
}

/// Calls `check` with the log after a power cut in each operation of the next open; gives how often the name was lost then.
fn for_each_power_cut(check: &dyn Fn(SimDisk, u64)) -> u64 {
    let mut lost = 0;
    for ahead in 0.. {
        let (disk, events) = stopped_with_an_unsynced_name();
        disk.crash_at(disk.ops() + ahead);
        if try_open(&disk).is_ok() && !disk.is_crashed() {
            return lost;
        }
        disk.restart(CrashKind::All, &mut Rng::of(0));
        lost += u64::from(segments(&disk).len() as u64 == BEFORE + 1);
        check(disk, events);
    }
    unreachable!("an open has an end")
}

/// Reads every byte; gives how many events and location files there are.
fn verified(disk: &SimDisk) -> (u64, u64) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = verify(&disk, &mut |_| {}).unwrap();
    (report.events, report.locations)
}

#[test]
fn what_is_derived_from_a_segment_is_only_there_if_the_next_one_is() {
    let lost = for_each_power_cut(&|disk, events| {
        assert!(!newest_looks_sealed(&disk));
        assert_eq!(verified(&disk).0, events);
    });
    assert!(lost > 2, "{lost}");
}

#[test]
fn a_segment_that_is_the_newest_again_grows_and_is_sealed_anew() {
    // It is full after the first, and has a successor after the others.
    for more in [1, u64::from(SEGMENT_EVENTS)] {
        let lost = for_each_power_cut(&|disk, events| {
            let mut core = open(&disk);
            for n in events..events + more {
                append(&mut core, n).unwrap();
            }
            drop(core);
            disk.restart(CrashKind::All, &mut Rng::of(0));
            assert_eq!(verified(&disk).0, events + more);
            assert_eq!(read(&open(&disk)).len() as u64, events + more);
            disk.restart(CrashKind::All, &mut Rng::of(0));
            let sealed = segments(&disk).len() as u64 - 1;
            assert_eq!(verified(&disk), (events + more, sealed));
        });
        assert!(lost > 2, "{lost}");
    }
}
