//! Scavenging on a disk that fails: what stays is safe, the log goes on, damage is found.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use leftfold_log::{
    Core, ScavengeError, ScavengeOptions, ScavengeProgress, Truncation,
    disk::{Disk, FileKind, FileName},
    verify,
};
use leftfold_model::{Position, RecordedEvent, Revision, StreamName};
use leftfold_sim::{CrashKind, Fault, Op, Rng, SimDisk};

use crate::small_log::{append, open, read};

/// Events in the logs below.
const EVENTS: u64 = 100;
/// How many of them are erased: those of one stream of two, below this revision.
const BEFORE: u64 = 40;

fn truncations() -> [Truncation; 1] {
    [Truncation {
        stream: StreamName::new("dead").unwrap(),
        before: Revision::new(BEFORE),
    }]
}

fn scavenge(core: &mut Core) -> Result<ScavengeProgress, ScavengeError> {
    core.scavenge(&truncations(), ScavengeOptions::default(), &mut |_| {
        ControlFlow::Continue(())
    })
}

fn is_dead(event: &RecordedEvent) -> bool {
    event.stream.as_str() == "dead" && event.revision < Revision::new(BEFORE)
}

/// A log of four sealed segments and a newest one, still open.
fn filled() -> (SimDisk, Core, Vec<RecordedEvent>) {
    let disk = SimDisk::new();
    let mut core = open(&disk);
    for n in 0..EVENTS {
        append(&mut core, n).unwrap();
    }
    while core.maintain().unwrap() {}
    let events = read(&core);
    (disk, core, events)
}

/// Checks that nothing is missing but what was to be erased.
#[track_caller]
fn check(found: &[RecordedEvent], all: &[RecordedEvent], what: &str) {
    let stays = |events: &[RecordedEvent]| -> Vec<RecordedEvent> {
        events.iter().filter(|e| !is_dead(e)).cloned().collect()
    };
    assert_eq!(stays(found), stays(all), "{what}");
    assert!(found.iter().all(|event| all.contains(event)), "{what}");
}

/// Lets one scavenge fail, and checks the log while it is open, after it was scavenged again, and after a power cut.
fn fail_once(what: &str, fail: &dyn Fn(&SimDisk), heal: &dyn Fn(&SimDisk)) -> bool {
    let (disk, mut core, mut all) = filled();
    fail(&disk);
    let failed = scavenge(&mut core).is_err();
    heal(&disk);
    check(&read(&core), &all, what);
    let appended = append(&mut core, EVENTS);
    assert_eq!(appended, Ok(Position::new(EVENTS + 1)), "{what}: latched");
    all = {
        let newest = read(&core).pop();
        all.into_iter().chain(newest).collect()
    };
    if failed {
        let done = scavenge(&mut core).unwrap();
        assert!(done.is_finished(), "{what}");
    }
    let erased = read(&core);
    check(&erased, &all, what);
    assert_eq!(core.reader().stats().erased, BEFORE, "{what}");
    drop(core);
    disk.restart(CrashKind::All, &mut Rng::of(1));
    let core = open(&disk);
    assert_eq!(read(&core), erased, "{what}: after a power cut");
    core.close().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    assert_eq!(verify(&disk, &mut |_| {}).unwrap().erased, BEFORE, "{what}");
    failed
}

#[test]
fn a_failed_operation_ends_a_scavenge_and_leaves_the_log_writable() {
    let ops = [
        Op::Create,
        Op::Write,
        Op::Sync,
        Op::Rename,
        Op::SyncDir,
        Op::Remove,
    ];
    let mut failures = BTreeMap::new();
    for op in ops {
        for nth in 1.. {
            let what = format!("{op:?} number {nth} fails");
            let fault = Some(Fault::io(op, nth));
            let failed = fail_once(&what, &|disk| disk.fail(fault), &|disk| disk.fail(None));
            if !failed && nth > 12 {
                break;
            }
            *failures.entry(op).or_insert(0) += u32::from(failed);
        }
    }
    println!("{failures:?}");
    assert!(
        failures.len() == ops.len() && failures.values().all(|&n| n >= 4),
        "{failures:?}"
    );
}

#[test]
fn a_full_disk_ends_a_scavenge_and_leaves_the_log_writable() {
    let bytes: usize = filled()
        .0
        .contents()
        .iter()
        .map(|(_, bytes)| bytes.len())
        .sum();
    let mut failures = 0;
    for room in (0..9_000).step_by(250) {
        let what = format!("room for {room} bytes");
        let full = |disk: &SimDisk| disk.set_capacity(Some(bytes + room));
        failures += u32::from(fail_once(&what, &full, &|disk| disk.set_capacity(None)));
    }
    assert!((5..36).contains(&failures), "{failures}");
}

#[test]
fn a_killed_scavenge_is_finished_by_the_next_run() {
    let ops = {
        let (disk, mut core, _) = filled();
        let before = disk.ops();
        scavenge(&mut core).unwrap();
        disk.ops() - before
    };
    let mut earlier = 0;
    for point in 1..=ops {
        let (disk, mut core, all) = filled();
        disk.crash_at(disk.ops() + point);
        assert!(
            scavenge(&mut core).is_err() || point == ops,
            "crash in operation {point}"
        );
        drop(core);
        disk.restart(CrashKind::Killed, &mut Rng::of(point));
        let mut core = open(&disk);
        let what = format!("killed in operation {point} of {ops}");
        check(&read(&core), &all, &what);
        let before = core.reader().stats().erased;
        let done = scavenge(&mut core).unwrap();
        assert_eq!(before + done.events_erased, BEFORE, "{what}");
        assert_eq!(core.reader().stats().erased, BEFORE, "{what}");
        earlier += u64::from(before > 0);
    }
    assert!(
        earlier > ops / 2,
        "{earlier} of {ops} crashes came after the first segment"
    );
}

#[test]
fn any_flipped_bit_and_any_cut_of_a_rewritten_segment_is_found() {
    let (disk, mut core, _) = filled();
    scavenge(&mut core).unwrap();
    core.close().unwrap();
    let files = disk.contents();
    let is_rewritten = |name: &FileName| {
        matches!(
            name.kind(),
            FileKind::Segment {
                generation: 1..,
                ..
            } | FileKind::Locations {
                generation: 1..,
                ..
            }
        )
    };
    let verified = |name: &FileName, bytes: Vec<u8>| {
        let mut files = files.clone();
        let file = files.iter_mut().find(|(other, _)| other == name);
        file.unwrap().1 = bytes;
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::holding(&files));
        verify(&disk, &mut |_| {})
    };
    let mut seen = [0; 2];
    for (name, bytes) in files.iter().filter(|(name, _)| is_rewritten(name)) {
        let is_segment = matches!(name.kind(), FileKind::Segment { .. });
        assert_eq!(verified(name, bytes.clone()).unwrap().erased, BEFORE);
        for bit in (0..bytes.len() * 8).step_by(3) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = verified(name, damaged).expect_err("damage is found");
            let error =
                std::error::Error::source(&error).map_or(error.to_string(), |e| e.to_string());
            assert!(
                error.contains(&name.to_string()) || error.contains("format"),
                "{error}"
            );
            seen[usize::from(is_segment)] += 1;
        }
        for length in (0..bytes.len()).step_by(7) {
            assert!(
                verified(name, bytes[..length].to_vec()).is_err(),
                "{name} cut to {length}"
            );
        }
    }
    assert!(seen.iter().all(|&n| n > 1_000), "{seen:?}");
}

#[test]
fn locations_of_another_generation_are_not_believed() {
    let (disk, mut core, _) = filled();
    let old = disk.contents();
    scavenge(&mut core).unwrap();
    let expected = read(&core);
    core.close().unwrap();
    let mut files = disk.contents();
    // As after a copy that went wrong: the old bytes under the new name, and under the old one.
    let mut exchanged = 0;
    for (name, bytes) in old {
        let FileKind::Locations {
            first,
            generation: 0,
        } = name.kind()
        else {
            continue;
        };
        let newer = FileName::of(FileKind::Locations {
            first,
            generation: 1,
        });
        if let Some(file) = files.iter_mut().find(|(name, _)| *name == newer) {
            file.1.clone_from(&bytes);
            files.push((name, bytes));
            exchanged += 1;
        }
    }
    assert!(exchanged >= 3);
    let disk = SimDisk::holding(&files);
    let core = open(&disk);
    assert_eq!(core.report().indexes_rebuilt, exchanged);
    assert_eq!(read(&core), expected);
    let left = disk.contents();
    let stale = |name: &FileName| {
        matches!(name.kind(), FileKind::Locations { first, generation: 0 }
        if left.iter().any(|(other, _)| *other == FileName::of(FileKind::Segment { first, generation: 1 })))
    };
    assert!(
        !left.iter().any(|(name, _)| stale(name)),
        "stale locations are removed"
    );
}

#[test]
fn a_latched_log_is_not_scavenged() {
    let (disk, mut core, all) = filled();
    disk.fail(Some(Fault::io(Op::Sync, 1)));
    append(&mut core, EVENTS).unwrap_err();
    assert!(matches!(
        scavenge(&mut core),
        Err(ScavengeError::ReadOnly { .. })
    ));
    assert_eq!(read(&core), all);
}
