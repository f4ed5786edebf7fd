//! Missing and exchanged files on a real disk; bits and lengths are the simulation's.

use std::{error::Error, fs, path::Path};

use leftfold_log::{Log, LogOptions};
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
