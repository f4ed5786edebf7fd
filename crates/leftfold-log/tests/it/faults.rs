//! Refusals of the system and damage: what they must not lead to, and what opening may cost.

use std::{
    fs, io,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use leftfold_log::{
    Log, LogOptions, OpenError, ScavengeError, ScavengeOptions, SystemClock, Truncation,
    disk::{FileKind, LockError},
};
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Read, Revision};
use tempfile::TempDir;

use crate::{
    faulty_disk::{FaultyDisk, too_many_files},
    story::{append, directory, open, read, stream, tiny, try_read},
};

use ExpectedRevision::{Any, NoStream};

pub(crate) fn open_on(disk: &FaultyDisk, options: LogOptions) -> Result<Log, OpenError> {
    Log::open_on(Arc::new(disk.clone()), options, Arc::new(SystemClock))
}

/// Names in the directory with this ending.
pub(crate) fn names(directory: &TempDir, ending: &str) -> Vec<String> {
    let names = fs::read_dir(directory.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(ending)).collect();
    names.sort();
    names
}

/// Waits until `holds`, ten seconds at most.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "not yet: {what}");
        thread::yield_now();
    }
}

/// Fills several segments, with an index file for all but the newest.
pub(crate) fn several_segments(directory: &TempDir, events: u64) {
    let log = open(directory);
    for n in 0..events {
        log.append(append(&format!("s-{}", n % 5), Any, [n]))
            .unwrap();
    }
    log.close().unwrap();
}

#[test]
fn opening_reads_a_bounded_number_of_bytes_of_older_events() {
    let directory = directory();
    let options = LogOptions::default().with_segment_bytes(8 * 1024 * 1024);
    let large = || {
        let event = NewEvent::json(EventType::new("Large").unwrap(), vec![b'1'; 1024 * 1024]);
        Append::to(stream("large"), Any, vec![event]).unwrap()
    };
    let log = Log::open(directory.path(), options.clone()).unwrap();
    for _ in 0..160 {
        log.append(large()).unwrap();
    }
    log.close().unwrap();
    drop(log);
    // Seals what the sealer had not come to: an open after that reads no segment whole but the newest.
    Log::open(directory.path(), options.clone()).unwrap();
    let disk = FaultyDisk::at(&directory);
    let log = open_on(&disk, options).unwrap();
    let read = disk.read_bytes();
    assert!(read < 100 * 1024 * 1024, "{read} bytes were read");
    drop(log);
}

#[test]
fn the_directory_stays_locked_until_the_threads_of_a_panicked_log_have_ended() {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    let log = open_on(&disk, tiny()).unwrap();
    log.append(append("a", NoStream, [1])).unwrap();
    disk.refuse(|operation, name| {
        let is_append = matches!(name.kind(), FileKind::Segment { .. }) && operation == "write";
        assert!(!is_append, "a panic of the test");
        None
    });
    let panicked = catch_unwind(AssertUnwindSafe(|| log.append(append("a", Any, [2]))));
    assert!(panicked.is_err());
    let second = Log::open(directory.path(), tiny());
    assert!(
        matches!(second, Err(OpenError::Lock(LockError::Held))),
        "{second:?}"
    );
    assert!(log.close().is_err());
    drop(log);
    let log = open(&directory);
    assert!(!read(&log, &Read::all()).is_empty());
}

#[test]
fn an_index_file_that_cannot_be_opened_now_is_not_taken_for_a_damaged_one() {
    let directory = directory();
    several_segments(&directory, 400);
    let before = names(&directory, ".idx");
    assert!(!before.is_empty());
    let disk = FaultyDisk::at(&directory);
    disk.refuse(|operation, name| {
        let is_index = matches!(name.kind(), FileKind::Index { .. });
        (is_index && operation == "open").then(too_many_files)
    });
    let refused = open_on(&disk, tiny());
    assert!(
        matches!(&refused, Err(OpenError::Storage(e)) if !e.is_corruption()),
        "{refused:?}"
    );
    assert_eq!(names(&directory, ".idx"), before);
    disk.refuse_nothing();
    let log = open_on(&disk, tiny()).unwrap();
    assert_eq!(log.report().indexes_rebuilt, 0);
}

#[test]
fn an_index_file_of_a_newer_format_is_refused_by_name_and_kept() {
    let directory = directory();
    several_segments(&directory, 400);
    let before = names(&directory, ".idx");
    let path = directory.path().join(&before[0]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8..12].copy_from_slice(&99_u32.to_le_bytes());
    // The checksum covers the log's id, the range, and the offset (docs/format.md section 6).
    let seed = crc32c::crc32c(&bytes[16..48]);
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &[0; 8]), &bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let refused = Log::open(directory.path(), tiny());
    let is_refused = matches!(&refused, Err(OpenError::NewerFormat { found: 99, .. }));
    assert!(is_refused, "{refused:?}");
    assert_eq!(names(&directory, ".idx"), before);
}

/// Writes 800 events into 400 segments, to five streams in turns. Each segment gets an index file of its own when the log is
/// opened with the returned options.
pub(crate) fn many_segments_without_indexes(directory: &TempDir) -> LogOptions {
    let options = LogOptions::default()
        .with_segment_bytes(4 * 1024)
        .with_segment_events(2);
    let log = Log::open(directory.path(), options.clone()).unwrap();
    for n in 0..400 {
        log.append(append(&format!("s-{}", n % 5), Any, [n, 1_000 + n]))
            .unwrap();
    }
    log.close().unwrap();
    drop(log);
    for name in names(directory, ".idx") {
        fs::remove_file(directory.path().join(name)).unwrap();
    }
    options
}

#[test]
fn indexes_are_rebuilt_and_read_with_few_descriptors() {
    let directory = directory();
    let options = many_segments_without_indexes(&directory);
    let disk = FaultyDisk::at(&directory);
    disk.limit_open_files(150);
    let log = open_on(&disk, options).unwrap();
    assert!(log.report().indexes_rebuilt > 300, "{:?}", log.report());
    assert_eq!(read(&log, &Read::all()).len(), 800);
    assert_eq!(read(&log, &Read::stream(stream("s-3"))).len(), 160);
    let failed = log.maintenance_error();
    assert!(failed.is_none(), "{failed:?}");
}

#[test]
fn files_are_created_although_the_cache_of_files_has_every_descriptor() {
    let directory = directory();
    let options = LogOptions::default()
        .with_segment_bytes(4 * 1024)
        .with_segment_events(2);
    let disk = FaultyDisk::at(&directory);
    let log = open_on(&disk, options).unwrap();
    for n in 0..200 {
        log.append(append("a", Any, [n, 1_000 + n])).unwrap();
    }
    assert_eq!(read(&log, &Read::all()).len(), 400);
    disk.limit_open_files_to_those_open();
    for n in 200..300 {
        log.append(append("a", Any, [n, 1_000 + n])).unwrap();
    }
    assert_eq!(read(&log, &Read::all()).len(), 600);
    let failed = log.maintenance_error();
    assert!(failed.is_none(), "{failed:?}");
    log.close().unwrap();
}

/// Has no descriptors left for a segment behind the first.
fn refuse_new_segments(disk: &FaultyDisk) {
    disk.refuse(|operation, name| {
        let is_new = matches!(name.kind(), FileKind::Spare)
            || matches!(name.kind(), FileKind::Segment { first, .. } if first.get() > 1);
        (is_new && (operation == "create" || operation == "open")).then(too_many_files)
    });
}

#[test]
fn a_segment_that_cannot_be_created_for_lack_of_descriptors_latches_nothing() {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    refuse_new_segments(&disk);
    let log = open_on(&disk, tiny()).unwrap();
    let refused = (0..200).find_map(|n| log.append(append("a", Any, [n])).err());
    let refused = refused.unwrap();
    assert!(
        refused.is_definitely_not_written() && refused.is_transient(),
        "{refused:?}"
    );
    disk.refuse_nothing();
    log.append(append("a", Any, [1_000])).unwrap();
    let events = read(&log, &Read::all());
    assert_eq!(events.last().unwrap().id, crate::story::id(1_000));
    log.close().unwrap();
    drop(log);
    assert_eq!(read(&open(&directory), &Read::all()), events);
}

#[test]
fn a_log_that_was_killed_on_a_full_disk_opens_in_the_room_of_its_newest_segment() {
    let (golden, copied) = (directory(), directory());
    let log = open(&golden);
    log.append(append("a", NoStream, 0..20)).unwrap();
    let expected = read(&log, &Read::all());
    // The files as a killed process leaves them.
    for name in names(&golden, ".seg") {
        fs::copy(golden.path().join(&name), copied.path().join(&name)).unwrap();
    }
    let disk = FaultyDisk::at(&copied);
    let mut has_room = false;
    disk.refuse(move |operation, name| {
        let is_segment = matches!(name.kind(), FileKind::Segment { .. });
        has_room |= is_segment && operation == "shorten" && !name.is_temporary();
        let is_copy = is_segment && name.is_temporary() && operation == "write";
        (is_copy && !has_room).then(|| io::ErrorKind::StorageFull.into())
    });
    let log = open_on(&disk, tiny()).unwrap();
    assert_eq!(read(&log, &Read::all()), expected);
    log.append(append("a", Any, [100])).unwrap();
    log.close().unwrap();
    drop(log);
    assert_eq!(read(&open(&copied), &Read::all()).len(), 21);
}

#[test]
fn segments_are_sealed_although_there_is_no_room_for_a_spare() {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    disk.refuse(|operation, name| {
        let is_spare = matches!(name.kind(), FileKind::Spare) && operation == "create";
        is_spare.then(|| io::ErrorKind::StorageFull.into())
    });
    let log = open_on(&disk, tiny()).unwrap();
    // More segments than may wait to be sealed.
    for n in 0..2_000 {
        log.append(append("a", Any, [n])).unwrap();
    }
    eventually("segments are sealed", || {
        names(&directory, ".loc").len() > 30
    });
    assert_eq!(read(&log, &Read::all()).len(), 2_000);
    log.close().unwrap();
}

#[test]
fn indexes_that_cannot_be_written_hold_appends_up_and_latch_nothing() {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    disk.refuse(|operation, name| {
        let is_derived = matches!(
            name.kind(),
            FileKind::Index { .. } | FileKind::Locations { .. }
        );
        (is_derived && operation == "write").then(|| io::Error::other("simulated I/O error"))
    });
    let log = open_on(&disk, tiny()).unwrap();
    let refused = (0..100_000).find_map(|n| log.append(append("a", Any, [n])).err());
    let refused = refused.unwrap();
    assert!(
        refused.is_definitely_not_written() && refused.is_transient(),
        "{refused:?}"
    );
    let stored = read(&log, &Read::all()).len();
    disk.refuse_nothing();
    log.append(append("a", Any, [200_000])).unwrap();
    assert_eq!(read(&log, &Read::all()).len(), stored + 1);
    log.close().unwrap();
}

#[test]
fn a_scavenge_that_cannot_start_a_segment_says_why_and_may_be_repeated() {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    refuse_new_segments(&disk);
    let log = open_on(&disk, tiny()).unwrap();
    log.append(append("a", NoStream, 0..10)).unwrap();
    let truncations = [Truncation {
        stream: stream("a"),
        before: Revision::new(5),
    }];
    let scavenge = || {
        let options = ScavengeOptions::default().with_seal_newest();
        log.scavenge(&truncations, options, &mut |_| ControlFlow::Continue(()))
    };
    let refused = scavenge();
    assert!(
        matches!(refused, Err(ScavengeError::Storage { .. })),
        "{refused:?}"
    );
    log.append(append("a", Any, [10])).unwrap();
    disk.refuse_nothing();
    assert_eq!(scavenge().unwrap().events_erased, 5);
}

#[test]
fn an_address_is_no_directory() {
    let parent = directory();
    let address = parent.path().join("x");
    assert!(Log::open(&address, tiny()).is_ok());
    for address in [
        "postgres://ann:secret@host/db",
        "mongodb+srv://host/db",
        "postgres:/ann:secret@host/db",
        "MongoDB:ann:secret@host/db",
        " postgres://ann:secret@host/db",
        "\"postgres://ann:secret@host/db\"",
        "jdbc:postgresql://ann:secret@host/db",
        "\u{feff}postgres://ann:secret@host/db",
        "`postgres://ann:secret@host/db`",
        "LEFTFOLD_DATA=postgres://ann:secret@host/db",
        "kurrentdb:ann:secret@host",
        "postgres//ann:secret@host/db",
        "://ann:secret@host/db",
    ] {
        for opened in [
            Log::open(address, tiny()),
            Log::open_read_only(address, tiny()),
        ] {
            let refused = format!("{:?}", opened.unwrap_err());
            assert!(refused.contains("expected a directory"), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}

#[test]
fn a_merge_that_fails_keeps_no_space() {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    let full = Arc::new(AtomicBool::new(false));
    let is_full = Arc::clone(&full);
    disk.refuse(move |operation, name| {
        let is_merge =
            matches!(name.kind(), FileKind::Index { first, last } if last.get() - first.get() > 60);
        let refused = is_merge && operation == "write";
        is_full.fetch_or(refused, Ordering::SeqCst);
        refused.then(|| io::ErrorKind::StorageFull.into())
    });
    let log = open_on(&disk, tiny()).unwrap();
    for n in 0..600 {
        log.append(append("a", Any, [n])).unwrap();
    }
    eventually("a merge fails", || full.load(Ordering::SeqCst));
    eventually("the failure is reported", || {
        log.maintenance_error().is_some()
    });
    eventually("no temporary index", || {
        names(&directory, ".idx.tmp").is_empty()
    });
}

#[test]
fn a_spare_that_could_not_be_used_keeps_no_space() {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    let log = open_on(&disk, tiny()).unwrap();
    log.append(append("a", NoStream, [0])).unwrap();
    let has_spare = || !names(&directory, "spare").is_empty();
    eventually("there is a spare", has_spare);
    // As a file system that copies on write, and is full although room was reserved.
    disk.refuse(|operation, name| {
        let is_refused = name.kind() == FileKind::Spare && ["write", "create"].contains(&operation);
        is_refused.then(|| io::ErrorKind::StorageFull.into())
    });
    for n in 1..200 {
        if let Err(refused) = log.append(append("a", Any, [n])) {
            assert!(refused.is_transient(), "{refused:?}");
        }
    }
    eventually("the spare is gone", || !has_spare());
    disk.refuse_nothing();
    log.append(append("a", Any, [1_000])).unwrap();
}

#[test]
fn a_retry_after_an_unknown_outcome_is_not_said_to_be_certainly_not_written() {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    let log = open_on(&disk, tiny()).unwrap();
    log.append(append("a", NoStream, [1])).unwrap();
    disk.refuse(|operation, _| {
        (operation == "sync").then(|| io::Error::other("simulated I/O error"))
    });
    let lost = log.append(append("a", Any, [2, 3])).unwrap_err();
    assert!(!lost.is_definitely_not_written(), "{lost:?}");
    disk.refuse_nothing();
    for numbers in [vec![2, 3], vec![3], vec![2, 4]] {
        let again = log.append(append("a", Any, numbers)).unwrap_err();
        assert!(!again.is_definitely_not_written(), "{again:?}");
    }
    let other = log.append(append("a", Any, [5])).unwrap_err();
    assert!(other.is_definitely_not_written(), "{other:?}");
    assert!(log.close().is_err());
    let closed = log.append(append("a", Any, [2, 3])).unwrap_err();
    assert!(!closed.is_definitely_not_written(), "{closed:?}");
}

#[test]
fn a_retry_after_a_panic_is_not_said_to_be_certainly_not_written() {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    let log = open_on(&disk, tiny()).unwrap();
    disk.refuse(|operation, name| {
        let is_append = matches!(name.kind(), FileKind::Segment { .. }) && operation == "sync";
        assert!(!is_append, "a panic of the test");
        None
    });
    let panicked = catch_unwind(AssertUnwindSafe(|| log.append(append("a", Any, [2]))));
    assert!(panicked.is_err());
    disk.refuse_nothing();
    let again = log.append(append("a", Any, [2])).unwrap_err();
    assert!(!again.is_definitely_not_written(), "{again:?}");
}

#[test]
fn a_cursor_with_batches_of_no_bytes_reads_to_the_end() {
    let directory = directory();
    let log = open(&directory);
    log.append(append("a", NoStream, 0..100)).unwrap();
    let mut cursor = log.read(&Read::all()).unwrap().with_batch_bytes(0);
    let mut events = 0;
    while let Some(batch) = cursor.next_batch().unwrap() {
        events += batch.len();
    }
    assert_eq!(events, 100);
}

#[test]
fn a_listing_in_batches_of_no_streams_goes_on_to_the_end() {
    let directory = directory();
    let log = open(&directory);
    for (stream, event) in [("a", 0), ("b", 1), ("c", 2)] {
        log.append(append(stream, NoStream, event..event + 1))
            .unwrap();
    }
    let mut streams = log.streams("", None).unwrap();
    let mut count = 0;
    loop {
        let batch = streams.next_batch(0).unwrap();
        if batch.is_empty() {
            break;
        }
        count += batch.len();
    }
    assert_eq!(count, 3);
}

#[test]
fn a_damaged_block_of_an_index_or_locations_file_is_rebuilt_while_the_log_is_open() {
    for ending in [".idx", ".loc"] {
        let directory = directory();
        several_segments(&directory, 400);
        let log = open(&directory);
        let (all, of_stream) = (Read::all(), Read::stream(stream("s-2")));
        let expected = (read(&log, &all), read(&log, &of_stream));
        log.close().unwrap();
        drop(log);
        for name in names(&directory, ending) {
            let path = directory.path().join(name);
            let mut bytes = fs::read(&path).unwrap();
            let at = 64 + (bytes.len() - 128) / 3;
            bytes[at] ^= 0x10;
            fs::write(&path, bytes).unwrap();
        }
        let log = open(&directory);
        let found = |read: &Read| try_read(&log, read).ok();
        eventually(ending, || {
            (found(&all), found(&of_stream)) == (Some(expected.0.clone()), Some(expected.1.clone()))
        });
        log.close().unwrap();
        drop(log);
        let log = open(&directory);
        assert_eq!(read(&log, &of_stream), expected.1);
    }
}
