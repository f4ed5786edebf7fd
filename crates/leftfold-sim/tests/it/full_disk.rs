//! A disk that is full, and stays full.

use std::sync::Arc;

use leftfold_log::{Clock, Core, LogOptions, OpenError};
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Read, StreamName, Timestamp};
use leftfold_sim::{CrashKind, Rng, SimDisk};

#[derive(Debug)]
struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1)
    }
}

fn try_open(disk: &SimDisk) -> Result<Core, OpenError> {
    let options = LogOptions::default().with_segment_bytes(64 * 1024);
    Core::open(Arc::new(disk.clone()), options, Arc::new(StillClock))
}

fn open(disk: &SimDisk) -> Core {
    try_open(disk).unwrap()
}

/// A full disk on which a log of that many events was killed.
fn crashed(events: usize, loss: CrashKind) -> SimDisk {
    let disk = SimDisk::new();
    let mut core = open(&disk);
    for _ in 0..events {
        core.commit(&[append()]).remove(0).unwrap();
        while core.maintain().unwrap() {}
    }
    drop(core);
    disk.restart(loss, &mut Rng::of(1));
    disk.set_capacity(Some(used(&disk)));
    disk
}

fn append() -> Append {
    let event = NewEvent::json(EventType::new("T").unwrap(), vec![b'1'; 700]);
    Append::to(
        StreamName::new("s").unwrap(),
        ExpectedRevision::Any,
        vec![event],
    )
    .unwrap()
}

fn used(disk: &SimDisk) -> usize {
    disk.contents().iter().map(|(_, bytes)| bytes.len()).sum()
}

#[test]
fn a_log_opens_after_a_crash_although_the_disk_stays_full() {
    for loss in [CrashKind::Killed, CrashKind::All] {
        let disk = SimDisk::new();
        let mut core = open(&disk);
        for _ in 0..8 {
            core.commit(&[append()]).remove(0).unwrap();
            while core.maintain().unwrap() {}
        }
        let before = core
            .reader()
            .read(&Read::all())
            .unwrap()
            .next_batch()
            .unwrap();
        drop(core);
        disk.restart(loss, &mut Rng::of(1));
        disk.set_capacity(Some(used(&disk)));
        let mut core = open(&disk);
        let after = core
            .reader()
            .read(&Read::all())
            .unwrap()
            .next_batch()
            .unwrap();
        assert_eq!(after, before, "{loss:?}");
        let refused = (0..200)
            .find_map(|_| core.commit(&[append()]).remove(0).err())
            .unwrap();
        assert!(refused.is_transient(), "{refused:?}");
        disk.set_capacity(None);
        core.commit(&[append()]).remove(0).unwrap();
    }
}

#[test]
fn a_log_whose_indexes_waited_to_be_written_opens_after_a_crash_although_the_disk_stays_full() {
    for loss in [CrashKind::Killed, CrashKind::All] {
        let disk = SimDisk::new();
        let mut core = open(&disk);
        for _ in 0..16 {
            core.commit(&[append()]).remove(0).unwrap();
        }
        assert!(core.reader().stats().segments > 2);
        drop(core);
        disk.restart(loss, &mut Rng::of(1));
        disk.set_capacity(Some(used(&disk)));
        let core = open(&disk);
        assert_eq!(core.report().indexes_rebuilt, 2, "{loss:?}");
        let mut cursor = core.reader().read(&Read::all()).unwrap();
        assert_eq!(cursor.next_batch().unwrap().unwrap().len(), 16, "{loss:?}");
    }
}

#[test]
fn a_log_whose_opening_was_killed_on_a_full_disk_opens_although_the_disk_stays_full() {
    for events in 1..=24 {
        for loss in [CrashKind::Killed, CrashKind::All] {
            // Killed at each operation of an opening for which there is room.
            for op in 1.. {
                if try_open(&crashed(events, loss)).is_err() {
                    // There is none: half of the newest segment is used.
                    break;
                }
                let disk = crashed(events, loss);
                disk.crash_at(disk.ops() + op);
                let was_opened = try_open(&disk).is_ok();
                if was_opened {
                    break;
                }
                disk.restart(loss, &mut Rng::of(1));
                let core = try_open(&disk).unwrap_or_else(|error| {
                    panic!("{events} events, {loss:?}, killed at operation {op}: {error:?}")
                });
                let mut cursor = core.reader().read(&Read::all()).unwrap();
                let read = cursor.next_batch().unwrap().unwrap().len();
                assert_eq!(read, events, "{loss:?}, killed at operation {op}");
            }
        }
    }
}
