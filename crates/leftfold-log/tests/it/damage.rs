//! Missing and exchanged files on a real disk; bits and lengths are the simulation's.

use std::{
    error::Error,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use leftfold_log::{
    Core, Log, LogOptions, OpenError, SystemClock,
    disk::{Disk, FileKind, FileName, read_only::ReadOnlyDisk},
    verify,
};
use leftfold_model::{ExpectedRevision, Read, RecordedEvent};

use crate::story::{append, directory, files, stream, try_read};

fn options() -> LogOptions {
    LogOptions::default()
        .with_segment_bytes(4 * 1024)
        .with_segment_events(12)
}

/// Everything a reader can ask of the log.
fn everything(directory: &Path) -> Result<Vec<RecordedEvent>, Box<dyn Error>> {
    let log = Log::open(directory, options())?;
    let mut events = try_read(&log, &Read::all())?;
    events.extend(try_read(&log, &Read::stream(stream("a-1")))?);
    let mut streams = log.streams("", None)?;
    let listed = streams.next_batch(100)?;
    assert!(listed.len() <= 2);
    Ok(events)
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// A log of three segments, cleanly stopped, and its events.
fn small_log(directory: &Path) -> Vec<RecordedEvent> {
    let log = Log::open(directory, options()).unwrap();
    for n in 0..26 {
        log.append(append(
            if n % 3 == 0 { "a-1" } else { "b-2" },
            ExpectedRevision::Any,
            [n],
        ))
        .unwrap();
    }
    log.close().unwrap();
    drop(log);
    everything(directory).unwrap()
}

/// The outcome after one damage: the same events, or an error.
#[track_caller]
fn check(scratch: &Path, expected: &[RecordedEvent], what: &str) {
    if let Ok(events) = everything(scratch) {
        assert!(events == expected, "{what}: other events than were stored");
    }
}

#[test]
fn a_missing_file_gives_the_same_events_or_an_error() {
    let (golden, scratch) = (directory(), directory());
    let expected = small_log(golden.path());
    for file in files(golden.path()) {
        copy(golden.path(), scratch.path());
        fs::remove_file(scratch.path().join(file.file_name().unwrap())).unwrap();
        check(
            scratch.path(),
            &expected,
            &format!("{} missing", file.display()),
        );
    }
}

#[test]
fn two_segments_that_changed_places_are_refused() {
    let (golden, scratch) = (directory(), directory());
    small_log(golden.path());
    let segments: Vec<_> = files(golden.path())
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "seg"))
        .collect();
    copy(golden.path(), scratch.path());
    fs::copy(
        &segments[0],
        scratch.path().join(segments[1].file_name().unwrap()),
    )
    .unwrap();
    fs::copy(
        &segments[1],
        scratch.path().join(segments[0].file_name().unwrap()),
    )
    .unwrap();
    assert!(everything(scratch.path()).is_err());
}

#[test]
fn a_log_without_its_newest_segments_is_refused() {
    let (golden, scratch) = (directory(), directory());
    let expected = small_log(golden.path());
    // The next open writes what indexes were missing.
    assert_eq!(everything(golden.path()).unwrap(), expected);
    let named = |ending: &str| {
        let all = files(golden.path()).into_iter();
        let names = all.map(|file| file.file_name().unwrap().to_str().unwrap().to_owned());
        let names = names.filter(|name| name.ends_with(ending));
        names.collect::<Vec<_>>()
    };
    let segments = named(".seg");
    assert!(segments.len() > 2, "{segments:?}");
    // What tells of the missing ones: all that is derived from segments, or the index or the locations of the one before them.
    let derived = [named(".idx"), named(".loc")].concat();
    let cases = (1..segments.len()).flat_map(|n| ["all", ".idx", ".loc"].map(|kind| (n, kind)));
    for (kept, told_by) in cases {
        copy(golden.path(), scratch.path());
        // As after an unclean stop: no marker.
        fs::remove_file(scratch.path().join("clean-stop")).unwrap();
        for name in &segments[kept..] {
            fs::remove_file(scratch.path().join(name)).unwrap();
        }
        let newest = &segments[kept - 1][..16];
        let is_kept = |name: &str| {
            told_by == "all" || name < newest || name.starts_with(newest) && name.ends_with(told_by)
        };
        for name in derived.iter().filter(|name| !is_kept(name)) {
            fs::remove_file(scratch.path().join(name)).unwrap();
        }
        let before = files(scratch.path());
        for opened in [
            Log::open(scratch.path(), options()).map(drop),
            Log::open_read_only(scratch.path(), options()).map(drop),
        ] {
            let error = opened.unwrap_err();
            assert!(
                matches!(&error, OpenError::Storage(e) if e.is_corruption()),
                "{error:?}"
            );
        }
        let mut after = files(scratch.path());
        after.retain(|file| file.file_name().unwrap() != "lock");
        let before: Vec<_> = before
            .into_iter()
            .filter(|file| file.file_name().unwrap() != "lock")
            .collect();
        assert_eq!(after, before);
        let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk::at(scratch.path()).unwrap());
        assert!(verify(&disk, &mut |_| {}).is_err());
    }
}

#[test]
fn a_segment_file_that_is_longer_than_any_segment_is_refused_by_its_length() {
    let directory = directory();
    let expected = small_log(directory.path());
    let newest = files(directory.path())
        .into_iter()
        .rfind(|file| file.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    let length = fs::metadata(&newest).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&newest).unwrap();
    for long in [1 << 32, 1 << 40] {
        file.set_len(long).unwrap();
        let refused = Log::open(directory.path(), options()).unwrap_err();
        let OpenError::Storage(error) = refused else {
            panic!("{refused}")
        };
        assert!(error.to_string().contains(&long.to_string()), "{error}");
    }
    file.set_len(length).unwrap();
    assert_eq!(everything(directory.path()).unwrap(), expected);
}

/// Makes a closed log look like one whose process was killed; returns its newest segment.
fn end_uncleanly(log: &Path) -> PathBuf {
    fs::remove_file(log.join("clean-stop")).unwrap();
    let mut files = files(log).into_iter();
    let newest = files.rfind(|file| file.extension().is_some_and(|e| e == "seg"));
    newest.unwrap()
}

#[cfg(unix)]
#[test]
fn a_torn_tail_of_zeros_takes_no_room_when_it_is_saved() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let directory = directory();
    let expected = small_log(directory.path());
    let newest = end_uncleanly(directory.path());
    let file = fs::OpenOptions::new().write(true).open(&newest).unwrap();
    file.write_all_at(b"x", 24 * 1024 * 1024).unwrap();
    assert_eq!(everything(directory.path()).unwrap(), expected);
    let saved = files(directory.path())
        .into_iter()
        .find(|file| file.extension().is_some_and(|e| e == "cut"))
        .unwrap();
    let saved = fs::metadata(saved).unwrap();
    assert!(saved.len() > 20 * 1024 * 1024, "{} bytes", saved.len());
    let room = saved.blocks() * 512;
    assert!(room < 4 * 1024 * 1024, "{room} bytes of room");
}

#[test]
fn a_log_that_is_only_read_keeps_no_torn_tail_in_memory() {
    let directory = directory();
    let expected = small_log(directory.path());
    let newest = end_uncleanly(directory.path());
    let mut file = fs::OpenOptions::new().append(true).open(&newest).unwrap();
    file.write_all(&[b'x'; 1024 * 1024]).unwrap();
    let disk = Arc::new(ReadOnlyDisk::at(directory.path()).unwrap());
    let core = Core::open(disk.clone(), options(), Arc::new(SystemClock)).unwrap();
    assert_eq!(core.report().torn_tail, None);
    let names = disk.list().unwrap();
    let is_torn_tail = |name: &FileName| matches!(name.kind(), FileKind::TornTail { .. });
    assert!(!names.iter().flatten().any(is_torn_tail), "{names:?}");
    drop(core);
    assert_eq!(everything(directory.path()).unwrap(), expected);
}
