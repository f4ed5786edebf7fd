//! Index and locations files that are damaged or refused, as appends, merges and opens meet them.

use std::{
    fs, io,
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Barrier},
};

use leftfold_log::{
    AppendError, Core, Log, LogOptions, OpenError, ScavengeOptions, SystemClock, Truncation,
    disk::{Disk, FileKind, FileName, LockError, read_only::ReadOnlyDisk, real::RealDisk},
    salvage, verify,
};
use leftfold_model::{
    Append, AppendCondition, Conflict, EventType, ExpectedRevision, Position, Query, QueryItem,
    Read, Revision, Tag,
};
use tempfile::TempDir;

use crate::{
    faults::{eventually, many_segments_without_indexes, names, open_on, several_segments},
    faulty_disk::FaultyDisk,
    story::{append, directory, files, open, read, stream, tiny, try_read},
};

use ExpectedRevision::{Any, Exact};

/// Flips a bit within a block of every file with this ending, this part of the way through the file.
fn damage(directory: &TempDir, ending: &str, part: usize) {
    for name in names(directory, ending) {
        let path = directory.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let at = 64 + (bytes.len() - 128) * part / 8;
        *bytes.get_mut(at).unwrap() ^= 0x10;
        fs::write(&path, bytes).unwrap();
    }
}

/// An append that fails if there is an event of this type with this tag.
fn unless(n: u64, event_type: &str, tag: &str) -> Append {
    let types = [EventType::new(event_type).unwrap()];
    let item = QueryItem::new(types, [Tag::new(tag).unwrap()]).unwrap();
    let query = Query::items([item]).unwrap();
    let condition = AppendCondition::new(query, Position::START);
    append("new", Any, [n]).with_condition(condition).unwrap()
}

/// Decides an append until an index can be read; whatever was decided is a decision on the whole log.
#[track_caller]
fn decided(log: &Log, append: &Append) -> Result<(), Conflict> {
    let mut decided = None;
    eventually("the index is read", || {
        decided = match log.append(append.clone()) {
            Ok(_) => Some(Ok(())),
            Err(AppendError::Conflict(conflict)) => Some(Err(conflict)),
            Err(unreadable) => {
                assert!(unreadable.is_definitely_not_written(), "{unreadable:?}");
                None
            }
        };
        decided.is_some()
    });
    decided.unwrap()
}

#[test]
fn an_append_that_meets_a_damaged_block_is_never_decided_without_it() {
    let parts = [1, 3, 5, 7];
    for (ending, part) in parts.map(|part| [(".idx", part), (".loc", part)]).concat() {
        let directory = directory();
        several_segments(&directory, 400);
        damage(&directory, ending, part);
        let log = open(&directory);
        let failed = decided(&log, &unless(1_000, "T0", "n:3"));
        let is_failed = matches!(failed, Err(Conflict::ConditionFailed { .. }));
        assert!(is_failed, "{ending} {part}: {failed:?}");
        decided(&log, &unless(1_001, "T9", "n:3")).unwrap();
        let stale = decided(&log, &append("s-2", Exact(Revision::new(78)), [1_002]));
        let is_stale = matches!(stale, Err(Conflict::WrongRevision { .. }));
        assert!(is_stale, "{ending} {part}: {stale:?}");
        decided(&log, &append("s-2", Exact(Revision::new(79)), [1_003])).unwrap();
        eventually("streams are listed", || {
            let listed = log.streams("", None).and_then(|mut all| all.next_batch(9));
            listed.is_ok_and(|listed| listed.iter().map(|entry| entry.events).sum::<u64>() == 402)
        });
        eventually("everything is read", || {
            try_read(&log, &Read::all()).is_ok_and(|events| events.len() == 402)
        });
        log.close().unwrap();
    }
}

#[test]
fn a_merge_that_meets_a_damaged_block_goes_on_once_it_is_rebuilt() {
    for part in [1, 4, 7] {
        let directory = directory();
        several_segments(&directory, 400);
        damage(&directory, ".idx", part);
        let log = open(&directory);
        for n in 400..1_000 {
            decided(&log, &append(&format!("s-{}", n % 5), Any, [n])).unwrap();
        }
        eventually("maintenance goes on", || {
            log.maintenance_error().is_none() && names(&directory, ".idx").len() < 8
        });
        for name in 0..5 {
            eventually("a stream is read", || {
                let of_stream = Read::stream(stream(&format!("s-{name}")));
                try_read(&log, &of_stream).is_ok_and(|events| events.len() == 200)
            });
        }
        log.close().unwrap();
        assert_eq!(open(&directory).report().indexes_rebuilt, 0);
    }
}

#[test]
fn a_log_that_is_only_read_merges_no_index_files_into_memory() {
    let directory = directory();
    several_segments(&directory, 400);
    // Each segment has an index file of its own again.
    for name in names(&directory, ".idx") {
        fs::remove_file(directory.path().join(name)).unwrap();
    }
    let disk = Arc::new(ReadOnlyDisk::at(directory.path()).unwrap());
    let mut core = Core::open(disk, tiny(), Arc::new(SystemClock)).unwrap();
    let files = core.reader().stats().index_files;
    assert!(files > 2, "{files}");
    while core.maintain().unwrap() {}
    assert_eq!(core.reader().stats().index_files, files);
    drop(core);
    let disk = Arc::new(RealDisk::at(directory.path()).unwrap());
    let mut core = Core::open(disk, tiny(), Arc::new(SystemClock)).unwrap();
    while core.maintain().unwrap() {}
    assert!(core.reader().stats().index_files < files);
}

#[test]
fn no_passing_error_of_an_index_or_locations_file_is_taken_for_damage() {
    let is_index: fn(&FileName) -> bool = |name| matches!(name.kind(), FileKind::Index { .. });
    let is_locations: fn(&FileName) -> bool =
        |name| matches!(name.kind(), FileKind::Locations { .. });
    for operation in ["open", "read"] {
        // No descriptor, no memory, no permission, an I/O error.
        for (code, is_refused) in [24, 12, 13, 5]
            .into_iter()
            .zip([is_index, is_locations].into_iter().cycle())
        {
            let directory = directory();
            several_segments(&directory, 400);
            let disk = FaultyDisk::at(&directory);
            disk.refuse(move |asked, name| {
                (asked == operation && is_refused(name)).then(|| io::Error::from_raw_os_error(code))
            });
            let what = format!("{operation} {code}");
            match open_on(&disk, tiny()) {
                Ok(log) => {
                    assert_eq!(log.report().indexes_rebuilt, 0, "{what}");
                    // A read that fails now is not wrong, and no reason to refuse appends.
                    if let Ok(events) = try_read(&log, &Read::stream(stream("s-3"))) {
                        assert_eq!(events.len(), 80, "{what}");
                    }
                    disk.refuse_nothing();
                    assert_eq!(read(&log, &Read::stream(stream("s-3"))).len(), 80, "{what}");
                    log.append(append("s-3", Any, [1_000])).unwrap();
                    log.close().unwrap();
                }
                Err(OpenError::Storage(error)) => {
                    assert!(!error.is_corruption(), "{what}: {error:?}")
                }
                Err(error) => panic!("{what}: {error:?}"),
            }
            disk.refuse_nothing();
            let log = open_on(&disk, tiny()).unwrap();
            assert_eq!(log.report().indexes_rebuilt, 0, "{what}");
            assert!(read(&log, &Read::all()).len() >= 400, "{what}");
        }
    }
}

#[test]
fn whatever_cannot_be_opened_or_created_for_a_while_latches_nothing() {
    // No descriptor in the process, none in the system, no memory.
    for code in [24, 23, 12] {
        let directory = directory();
        let disk = FaultyDisk::at(&directory);
        let log = open_on(&disk, tiny()).unwrap();
        let mut stored = 0;
        for round in 0..4 {
            disk.refuse(move |operation, _| {
                let is_refused = operation == "create" || operation == "open";
                is_refused.then(|| io::Error::from_raw_os_error(code))
            });
            for n in 0..90 {
                match log.append(append("a", Any, [1_000 * round + n])) {
                    Ok(_) => stored += 1,
                    Err(refused) => assert!(
                        refused.is_definitely_not_written() && refused.is_transient(),
                        "{code}: {refused:?}"
                    ),
                }
            }
            if let Ok(events) = try_read(&log, &Read::all()) {
                assert_eq!(events.len(), stored, "{code}");
            }
            disk.refuse_nothing();
            for n in 100..190 {
                log.append(append("a", Any, [1_000 * round + n])).unwrap();
                stored += 1;
            }
            assert_eq!(read(&log, &Read::all()).len(), stored, "{code}");
        }
        eventually("maintenance goes on", || log.maintenance_error().is_none());
        log.close().unwrap();
        drop(log);
        let log = open(&directory);
        assert_eq!(
            read(&log, &Read::stream(stream("a"))).len(),
            stored,
            "{code}"
        );
        assert_eq!(log.report().indexes_rebuilt, 0);
    }
}

#[test]
fn a_scavenge_that_outlives_its_log_changes_nothing_of_the_next_owner() {
    let directory = directory();
    several_segments(&directory, 400);
    let log = open(&directory);
    let (begun, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let scavenging = {
        let (log, begun, go_on) = (log.clone(), Arc::clone(&begun), Arc::clone(&go_on));
        std::thread::spawn(move || {
            let all = [0, 1, 2].map(|name| Truncation {
                stream: stream(&format!("s-{name}")),
                before: Revision::new(70),
            });
            let mut is_first = true;
            log.scavenge(&all, ScavengeOptions::default(), &mut |_| {
                if std::mem::take(&mut is_first) {
                    begun.wait();
                    go_on.wait();
                }
                ControlFlow::Continue(())
            })
        })
    };
    begun.wait();
    log.close().unwrap();
    let next = open(&directory);
    for n in 400..500 {
        next.append(append("s-1", Any, [n])).unwrap();
    }
    let (before, files) = (read(&next, &Read::all()), names(&directory, ".seg"));
    go_on.wait();
    assert!(scavenging.join().unwrap().is_err());
    assert_eq!(names(&directory, ".seg"), files);
    assert_eq!(read(&next, &Read::all()), before);
    next.close().unwrap();
    assert_eq!(read(&open(&directory), &Read::all()), before);
}

#[test]
fn a_cursor_that_outlives_its_log_gives_what_was_stored_or_an_error() {
    let directory = directory();
    several_segments(&directory, 400);
    let log = open(&directory);
    let stored = read(&log, &Read::all());
    let cursor = |read: &Read| log.read(read).unwrap().with_batch_bytes(1);
    let mut cursors = [cursor(&Read::all()), cursor(&Read::all().backwards())];
    for cursor in &mut cursors {
        cursor.next_batch().unwrap().unwrap();
    }
    log.close().unwrap();
    drop(log);
    let next = open(&directory);
    let all = [Truncation {
        stream: stream("s-2"),
        before: Revision::new(75),
    }];
    let options = ScavengeOptions::default().with_seal_newest();
    next.scavenge(&all, options, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    for n in 400..900 {
        next.append(append("s-2", Any, [n])).unwrap();
    }
    for mut cursor in cursors {
        while let Ok(Some(events)) = cursor.next_batch() {
            for event in events {
                assert!(stored.contains(&event), "{event:?}");
            }
        }
    }
    assert_eq!(read(&next, &Read::stream(stream("s-2"))).len(), 505);
}

#[test]
fn a_closed_log_rebuilds_nothing_in_the_directory_of_the_next_owner() {
    let directory = directory();
    several_segments(&directory, 400);
    let log = open(&directory);
    eventually("index files are merged", || {
        names(&directory, ".idx").len() < 5
    });
    log.close().unwrap();
    damage(&directory, ".idx", 3);
    damage(&directory, ".loc", 3);
    // A reader that is late meets the damage.
    for name in 0..5 {
        let _ = try_read(&log, &Read::stream(stream(&format!("s-{name}"))));
    }
    let _ = try_read(&log, &Read::all());
    let next = open(&directory);
    eventually("the next owner reads everything", || {
        let streams = (0..5).map(|name| Read::stream(stream(&format!("s-{name}"))));
        let mut counts = streams.map(|read| try_read(&next, &read).map_or(0, |found| found.len()));
        counts.all(|count| count == 80)
            && try_read(&next, &Read::all()).is_ok()
            && next.maintenance_error().is_none()
    });
    // A file that is written again is another file.
    let placed = || {
        let placed = |path: PathBuf| (fs::metadata(&path).unwrap().ino(), path);
        files(directory.path())
            .into_iter()
            .map(placed)
            .collect::<Vec<_>>()
    };
    let before = placed();
    let rebuilt = log.rebuild_damaged();
    assert_eq!(placed(), before);
    assert!(rebuilt.is_err());
    next.close().unwrap();
    assert_eq!(open(&directory).report().indexes_rebuilt, 0);
}

#[test]
fn options_at_their_ends_keep_every_event() {
    // Of the largest segments one is enough: each of them takes its room when it begins.
    for (bytes, events) in [
        (0, 0),
        (0, 3),
        (0, u32::MAX),
        (5_000, 0),
        (5_000, u32::MAX),
        (u64::MAX, u32::MAX),
    ] {
        for cache in [0, 1, usize::MAX] {
            let directory = directory();
            let options = LogOptions::default()
                .with_segment_bytes(bytes)
                .with_segment_events(events)
                .with_cache_bytes(cache);
            let log = Log::open(directory.path(), options.clone()).unwrap();
            for n in 0..40 {
                log.append(append("a", Any, [n])).unwrap();
            }
            log.close().unwrap();
            drop(log);
            let log = Log::open(directory.path(), options).unwrap();
            let mut cursor = log.read(&Read::all()).unwrap().with_batch_bytes(u64::MAX);
            let first = cursor.next_batch().unwrap().unwrap();
            let found = read(&log, &Read::stream(stream("a"))).len();
            assert_eq!((found, first[0].position), (40, Position::FIRST));
        }
    }
}

#[test]
fn a_directory_is_locked_for_every_way_to_open_it() {
    let directory = directory();
    let log = open(&directory);
    log.append(append("a", Any, [1])).unwrap();
    let other = Log::open_read_only(directory.path(), tiny());
    assert!(
        matches!(other, Err(OpenError::Lock(LockError::Held))),
        "{other:?}"
    );
    drop(log);
    let readers = [(); 2].map(|()| Log::open_read_only(directory.path(), tiny()).unwrap());
    let writer = Log::open(directory.path(), tiny());
    assert!(
        matches!(writer, Err(OpenError::Lock(LockError::Held))),
        "{writer:?}"
    );
    drop(readers);
    assert_eq!(read(&open(&directory), &Read::all()).len(), 1);
}

#[test]
fn what_cannot_be_rebuilt_keeps_no_other_damaged_file_from_being_rebuilt() {
    for ending in [".idx", ".loc"] {
        let directory = directory();
        several_segments(&directory, 400);
        for name in names(&directory, ".idx") {
            fs::remove_file(directory.path().join(name)).unwrap();
        }
        // Without threads, each segment keeps an index file of its own.
        let disk = Arc::new(RealDisk::at(directory.path()).unwrap());
        drop(Core::open(disk, tiny(), Arc::new(SystemClock)).unwrap());
        assert!(names(&directory, ending).len() > 4);
        let log = Log::open_read_only(directory.path(), tiny().with_cache_bytes(0)).unwrap();
        damage(&directory, ending, 3);
        let second = directory.path().join(&names(&directory, ".seg")[1]);
        let mut bytes = fs::read(&second).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&second, bytes).unwrap();
        let types = [0, 1, 2].map(|n| EventType::new(format!("T{n}")).unwrap());
        let query = Query::items([QueryItem::new(types, []).unwrap()]).unwrap();
        let read = |from: u64| {
            let read = Read::all().from_position(Position::new(from)).limit(50);
            let read = match ending {
                ".idx" => read.matching(query.clone()),
                _ => read,
            };
            let found = (0..9).find_map(|_| {
                let found = try_read(&log, &read).ok();
                if found.is_none() {
                    let _ = log.rebuild_damaged();
                }
                found
            });
            found.map(|events| events.len())
        };
        // Of the damaged segment nothing derived can be rebuilt; those behind it are read.
        assert_eq!(read(51), None, "{ending}");
        for from in (101..400).step_by(50) {
            assert_eq!(read(from), Some(50), "{ending} {from}");
        }
    }
}

#[test]
fn a_log_is_scavenged_verified_and_salvaged_with_few_descriptors() {
    let directory = directory();
    let options = LogOptions::default()
        .with_segment_bytes(4 * 1024)
        .with_segment_events(2);
    let disk = FaultyDisk::at(&directory);
    disk.limit_open_files(60);
    let log = open_on(&disk, options).unwrap();
    for n in 0..200 {
        let name = format!("s-{}", n % 5);
        log.append(append(&name, Any, [n, 1_000 + n])).unwrap();
    }
    assert_eq!(read(&log, &Read::all()).len(), 400);
    disk.limit_open_files_to_those_open();
    let before = Revision::new(60);
    let stream = stream("s-2");
    let scavenged = log.scavenge(
        &[Truncation { stream, before }],
        ScavengeOptions::default(),
        &mut |_| ControlFlow::Continue(()),
    );
    assert_eq!(scavenged.unwrap().events_erased, 60);
    log.close().unwrap();
    drop(log);
    disk.limit_open_files(40);
    let shared: Arc<dyn Disk> = Arc::new(disk);
    assert_eq!(verify(&shared, &mut |_| {}).unwrap().events, 400);
    // What the marker of the clean stop tells is not left out for lack of a descriptor.
    for name in names(&directory, ".idx") {
        fs::remove_file(directory.path().join(name)).unwrap();
    }
    for name in names(&directory, ".seg").iter().rev().take(2) {
        fs::remove_file(directory.path().join(name)).unwrap();
    }
    let salvaged = salvage(&shared, &mut |_| Ok::<(), OpenError>(())).unwrap();
    assert!(salvaged.missing > 0, "{salvaged:?}");
    assert_eq!(salvaged.events + salvaged.erased + salvaged.missing, 400);
}

#[test]
fn a_reader_that_stands_still_while_many_index_files_are_merged_leaves_descriptors_for_others() {
    let directory = directory();
    let options = many_segments_without_indexes(&directory);
    let disk = FaultyDisk::at(&directory);
    disk.limit_open_files(250);
    let log = open_on(&disk, options).unwrap();
    let mut cursor = log.read(&Read::all()).unwrap().with_batch_bytes(1);
    let mut seen = cursor.next_batch().unwrap().unwrap().len();
    for n in 2_000..2_300 {
        log.append(append("s-0", Any, [n, 1_000 + n])).unwrap();
    }
    assert_eq!(read(&log, &Read::stream(stream("s-0"))).len(), 760);
    while let Some(events) = cursor.next_batch().unwrap() {
        seen += events.len();
    }
    assert_eq!(seen, 800);
    drop(cursor);
    for n in 4_000..4_100 {
        log.append(append("s-0", Any, [n, 1_000 + n])).unwrap();
    }
    eventually("index files are merged", || log.stats().index_files < 12);
    assert!(log.maintenance_error().is_none());
    log.close().unwrap();
}
