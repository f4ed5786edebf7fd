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

use crate::{
    faulty_disk::FaultyDisk,
    story::{append, directory, files, read},
};

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
    salvaged_from(Arc::new(ReadOnlyDisk::at(directory).unwrap()))
}

fn salvaged_from(disk: Arc<dyn Disk>) -> Result<Found, OpenError> {
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
        let name = match n % 3 {
            0 => "a-1",
            1 => "b-2",
            _ => "c-3",
        };
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
fn bytes_that_a_disk_does_not_return_cost_what_they_hold_and_are_named() {
    let directory = directory();
    let options = LogOptions::default();
    let log = Log::open(directory.path(), options).unwrap();
    for n in 0..400 {
        let name = format!("a-{}", n % 3);
        log.append(append(&name, ExpectedRevision::Any, [n]))
            .unwrap();
    }
    let expected = read(&log, &Read::all());
    log.close().unwrap();
    drop(log);
    for start in [0_u64, 8_192, 16_384, 24_576] {
        let disk = FaultyDisk::at(&directory);
        // A part of a block, of the header where it is the first: the disk fails for the whole of it.
        disk.fail_reads_of(start + 10..start + 110);
        let (events, missing, report) = salvaged_from(Arc::new(disk)).unwrap();
        let lost: u64 = missing.iter().map(MissingRange::positions).sum();
        // Later events have their names from the first block.
        let most = if start == 0 { 400 } else { 120 };
        assert!((1..=most).contains(&lost), "byte {start}: {lost} lost");
        assert_eq!(events.len() as u64 + lost, expected.len() as u64);
        // The scan begins behind the header.
        let unreadable = 4_096 - if start == 0 { 64 } else { 0 };
        assert_eq!(report.unreadable_bytes, unreadable, "byte {start}");
        for (position, event) in &events {
            assert_eq!(event, &expected[usize::try_from(position - 1).unwrap()]);
        }
    }
}

#[test]
fn a_segment_that_the_system_does_not_open_is_named_and_the_others_are_salvaged() {
    for (stops, refused_number) in [(true, 13), (true, 5), (false, 2)] {
        let directory = directory();
        let expected = stored(directory.path(), stops);
        let of_kind = |kind: &'static str| {
            let files = files(directory.path()).into_iter();
            files.filter(move |file| file.extension().is_some_and(|extension| extension == kind))
        };
        if !stops {
            // An index tells what the newest segment held, as the marker of a clean stop does.
            of_kind("idx").for_each(|file| fs::remove_file(file).unwrap());
            fs::remove_file(directory.path().join("clean-stop")).unwrap();
        }
        let segments: Vec<_> = of_kind("seg").collect();
        for (at, file) in segments.iter().enumerate() {
            let disk = FaultyDisk::at(&directory);
            let refused = file.file_name().unwrap().to_str().unwrap().to_owned();
            let named = refused.clone();
            disk.refuse(move |operation, name| {
                let is_refused = operation == "open" && name.to_string() == refused;
                is_refused.then(|| std::io::Error::from_raw_os_error(refused_number))
            });
            let (events, missing, report) = salvaged_from(Arc::new(disk)).unwrap();
            assert_eq!(missing.len(), 1, "{missing:?}");
            assert!(missing[0].reason.contains("cannot open"), "{missing:?}");
            assert_eq!(missing[0].file.to_string(), named);
            if stops || at + 1 < segments.len() {
                let all = events.len() as u64 + report.missing;
                assert_eq!(all, expected.len() as u64, "{missing:?}");
            } else {
                assert!(missing[0].reason.contains("nothing tells"), "{missing:?}");
            }
            for (position, event) in &events {
                assert_eq!(event, &expected[usize::try_from(position - 1).unwrap()]);
            }
        }
    }
}

#[test]
fn what_is_missing_at_the_end_is_named_as_far_as_any_file_tells() {
    let (golden, scratch) = (directory(), directory());
    let expected = stored(golden.path(), true);
    Log::open(golden.path(), options())
        .unwrap()
        .close()
        .unwrap();
    let is = |file: &PathBuf, ending: &str| file.extension().is_some_and(|e| e == ending);
    copy(golden.path(), scratch.path());
    let indexed = files(golden.path())
        .iter()
        .filter(|file| is(file, "idx"))
        .map(|file| file.file_stem().unwrap().to_str().unwrap()[17..].to_owned())
        .map(|last| u64::from_str_radix(&last, 16).unwrap())
        .max();
    let segments: Vec<_> = files(scratch.path())
        .into_iter()
        .filter(|file| is(file, "seg"))
        .collect();
    // Without the newest segments and the marker, the indexes tell how far the log went.
    fs::remove_file(scratch.path().join("clean-stop")).unwrap();
    for segment in &segments[1..] {
        fs::remove_file(segment).unwrap();
    }
    let (events, missing, _) = salvaged(scratch.path()).unwrap();
    assert!(!events.is_empty());
    assert_eq!(missing.last().map(|range| range.last.get()), indexed);
    // Without the newest one alone, what is derived from the segment before it tells that it was there.
    copy(golden.path(), scratch.path());
    fs::remove_file(scratch.path().join("clean-stop")).unwrap();
    let newest = segments.last().unwrap();
    fs::remove_file(newest).unwrap();
    let (events, missing, _) = salvaged(scratch.path()).unwrap();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0].first.get(), events.len() as u64 + 1);
    let name = newest.file_name().unwrap().to_str().unwrap();
    assert_eq!(missing[0].file.to_string(), name);
    // Without any segment there is nothing to salvage, which is no success.
    copy(golden.path(), scratch.path());
    for segment in &segments {
        fs::remove_file(segment).unwrap();
    }
    let (events, missing, report) = salvaged(scratch.path()).unwrap();
    assert_eq!((events.len(), missing.len()), (0, 1));
    assert_eq!(report.missing, expected.len() as u64);
    fs::remove_file(scratch.path().join("clean-stop")).unwrap();
    let refused = salvaged(scratch.path());
    assert!(matches!(&refused, Err(OpenError::Storage(error)) if error.is_corruption()));
    let empty = directory();
    assert!(matches!(salvaged(empty.path()), Err(OpenError::NoLog)));
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
fn a_log_whose_segments_are_gone_is_damaged_and_not_absent_to_those_who_only_read_it() {
    let directory = directory();
    stored(directory.path(), true);
    for file in files(directory.path()) {
        if file.extension().is_some_and(|it| it == "seg") {
            fs::remove_file(file).unwrap();
        }
    }
    let left = files(directory.path());
    let is_damaged = |opened: Result<Log, OpenError>| matches!(opened, Err(OpenError::Storage(error)) if error.is_corruption());
    assert!(is_damaged(Log::open_read_only(directory.path(), options())));
    assert!(is_damaged(Log::open(directory.path(), options())));
    assert_eq!(files(directory.path()), left);
}

#[test]
fn a_segment_in_the_place_of_another_gives_no_position_twice() {
    let (sound, data) = (directory(), directory());
    let expected = stored(sound.path(), true);
    let is_segment = |file: &PathBuf| file.extension().is_some_and(|it| it == "seg");
    let segments: Vec<_> = files(sound.path()).into_iter().filter(is_segment).collect();
    assert!(segments.len() > 2);
    for from in &segments {
        for to in segments.iter().filter(|to| *to != from) {
            copy(sound.path(), data.path());
            let name = to.file_name().unwrap();
            fs::copy(from, data.path().join(name)).unwrap();
            let (found, missing, _) = salvaged(data.path()).unwrap();
            let kept = expected
                .iter()
                .filter(|event| found.contains_key(&event.position.get()));
            assert!(kept.eq(found.values()));
            let missing: u64 = missing.iter().map(MissingRange::positions).sum();
            assert_eq!(found.len() as u64 + missing, expected.len() as u64);
        }
    }
}

#[test]
fn what_operating_systems_put_into_a_directory_is_left_alone_and_other_things_are_refused_unchanged()
 {
    let data = directory();
    for name in ["lost+found", ".Trash-1000", ".glusterfs", ".wh..wh.plnk"] {
        fs::create_dir(data.path().join(name)).unwrap();
    }
    for name in [
        ".DS_Store",
        ".nfs000000000012",
        ".fuse_hidden0000000300000001",
        ".smb0004",
        "._x",
        "Thumbs.db",
        "aquota.user",
        "quota.user",
        "#recycle",
        "lost_found",
        ".sujournal",
        ".nilfs",
        "core.4711",
    ] {
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
