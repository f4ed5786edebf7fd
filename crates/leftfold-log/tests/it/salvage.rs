//! Salvaging damaged logs, and reading without changing anything.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use leftfold_log::{
    AppendError, Log, LogOptions, MissingRange, OpenError, SalvageReport, Salvaged,
    disk::{Disk, read_only::ReadOnlyDisk},
    salvage,
};
use leftfold_model::{ExpectedRevision, Position, Read, RecordedEvent};

use crate::story::{append, directory, read};

fn options() -> LogOptions {
    LogOptions::default()
        .with_segment_bytes(4 * 1024)
        .with_segment_events(24)
}

/// Events of a salvage by position, the missing ranges, and the report.
type Found = (
    BTreeMap<u64, RecordedEvent>,
    Vec<MissingRange>,
    SalvageReport,
);

fn salvaged(directory: &Path) -> Result<Found, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk::at(directory).unwrap());
    let (mut events, mut missing, mut next) = (BTreeMap::new(), Vec::new(), Position::FIRST);
    let report = salvage(&disk, &mut |found| {
        match found {
            Salvaged::Entry(entry) => {
                assert_eq!(
                    entry.event.position, next,
                    "each position comes once, in order"
                );
                next = next.next();
                events.insert(entry.event.position.get(), entry.event);
            }
            Salvaged::Missing(range) => {
                assert_eq!(range.first, next);
                next = range.last.next();
                missing.push(range);
            }
            other => panic!("{other:?}"),
        }
        Ok::<(), OpenError>(())
    })?;
    Ok((events, missing, report))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    for file in files(to) {
        fs::remove_file(file).unwrap();
    }
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// A log of several segments, of appends of one to five events, and its events.
fn stored(directory: &Path, stops: bool) -> Vec<RecordedEvent> {
    let log = Log::open(directory, options()).unwrap();
    let mut n = 0;
    for count in [1, 5, 2, 3].into_iter().cycle().take(28) {
        let name = ["a-1", "b-2", "c-3"][usize::try_from(n % 3).unwrap()];
        log.append(append(name, ExpectedRevision::Any, n..n + count))
            .unwrap();
        n += count;
    }
    let events = read(&log, &Read::all());
    if stops {
        log.close().unwrap();
    }
    events
}

#[test]
fn a_sound_log_is_salvaged_whole() {
    let directory = directory();
    let expected = stored(directory.path(), true);
    let (events, missing, report) = salvaged(directory.path()).unwrap();
    assert!(events.into_values().eq(expected.iter().cloned()));
    assert_eq!(
        (missing.len(), report.missing, report.torn_bytes),
        (0, 0, 0)
    );
    assert_eq!(report.events, expected.len() as u64);
}

#[test]
fn whatever_byte_of_a_segment_is_flipped_the_rest_is_salvaged_and_what_is_missing_is_named() {
    let (golden, scratch) = (directory(), directory());
    let expected = stored(golden.path(), true);
    for file in files(golden.path()) {
        if file.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let bytes = fs::read(&file).unwrap();
        copy(golden.path(), scratch.path());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            fs::write(scratch.path().join(file.file_name().unwrap()), damaged).unwrap();
            let what = format!("byte {at} of {}", file.display());
            let (events, missing, report) = salvaged(scratch.path()).expect(&what);
            let lost: u64 = missing.iter().map(MissingRange::positions).sum();
            assert_eq!(report.missing, lost, "{what}");
            assert_eq!(events.len() as u64 + lost, expected.len() as u64, "{what}");
            for (position, event) in &events {
                let original = &expected[usize::try_from(position - 1).unwrap()];
                assert_eq!(event, original, "{what}");
            }
            // A frame, and events that have their names from it.
            assert!(lost <= 24, "{what}: {missing:?}");
        }
    }
}

#[test]
fn a_missing_segment_is_named_by_its_positions_and_the_others_are_salvaged() {
    let (golden, scratch) = (directory(), directory());
    let expected = stored(golden.path(), true);
    for file in files(golden.path()) {
        copy(golden.path(), scratch.path());
        fs::remove_file(scratch.path().join(file.file_name().unwrap())).unwrap();
        let (events, missing, _) = salvaged(scratch.path()).unwrap();
        let lost: u64 = missing.iter().map(MissingRange::positions).sum();
        assert_eq!(
            events.len() as u64 + lost,
            expected.len() as u64,
            "{}",
            file.display()
        );
        let is_segment = file.extension().is_some_and(|extension| extension == "seg");
        assert_eq!(lost > 0, is_segment, "{}", file.display());
    }
}

#[test]
fn a_log_is_read_without_making_or_changing_anything() {
    for stops in [true, false] {
        let (golden, scratch) = (directory(), directory());
        let expected = stored(golden.path(), stops);
        copy(golden.path(), scratch.path());
        // Indexes are rebuilt in memory.
        for file in files(scratch.path()) {
            if file.extension().is_some_and(|extension| extension == "idx") {
                fs::remove_file(file).unwrap();
            }
        }
        let content = |directory: &Path| -> Vec<_> {
            let file = |path: PathBuf| {
                let modified = fs::metadata(&path).unwrap().modified().unwrap();
                (fs::read(&path).unwrap(), modified, path)
            };
            files(directory).into_iter().map(file).collect()
        };
        let before = content(scratch.path());
        let log = Log::open_read_only(scratch.path(), options()).unwrap();
        let other = Log::open_read_only(scratch.path(), options()).unwrap();
        assert_eq!(read(&log, &Read::all()), expected);
        let refused = log.append(append("a-1", ExpectedRevision::Any, [9_999]));
        assert!(
            matches!(refused, Err(AppendError::ReadOnly { .. })),
            "{refused:?}"
        );
        assert_eq!(read(&other, &Read::all().backwards().limit(1)).len(), 1);
        log.close().unwrap();
        drop(other);
        assert!(content(scratch.path()) == before, "stopped: {stops}");
        // It is no lock for those who come afterwards.
        assert_eq!(
            read(&Log::open(scratch.path(), options()).unwrap(), &Read::all()),
            expected
        );
    }
}

#[test]
fn a_log_that_is_open_is_not_read_by_another_and_an_empty_directory_holds_none() {
    let directory = directory();
    let log = Log::open_read_only(directory.path(), options());
    assert!(matches!(log, Err(OpenError::NoLog)), "{log:?}");
    assert!(files(directory.path()).is_empty());
    let log = Log::open(directory.path(), options()).unwrap();
    let other = Log::open_read_only(directory.path(), options());
    assert!(matches!(other, Err(OpenError::Lock(_))), "{other:?}");
    drop(log);
    assert!(Log::open_read_only(directory.path(), options()).is_ok());
}

#[test]
fn what_operating_systems_put_into_a_directory_is_left_alone_and_other_things_are_refused_unchanged()
 {
    let data = directory();
    for name in ["lost+found", ".Trash-1000"] {
        fs::create_dir(data.path().join(name)).unwrap();
    }
    for name in [".DS_Store", ".nfs000000000012", "._x", "Thumbs.db"] {
        fs::write(data.path().join(name), "x").unwrap();
    }
    let expected = stored(data.path(), true);
    let log = Log::open(data.path(), options()).unwrap();
    assert_eq!(read(&log, &Read::all()), expected);
    drop(log);
    assert!(data.path().join(".DS_Store").exists());
    let other = directory();
    fs::write(other.path().join("notes.txt"), "x").unwrap();
    let refused = Log::open(other.path(), options());
    assert!(
        matches!(refused, Err(OpenError::ForeignFile { .. })),
        "{refused:?}"
    );
    assert_eq!(files(other.path()).len(), 1, "no lock file is left there");
}
