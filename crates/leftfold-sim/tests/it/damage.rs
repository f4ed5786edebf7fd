//! Every flipped bit and every cut of a small log gives the same events or an error.

use std::sync::Arc;

use leftfold_log::{
    Clock, Core, LogOptions,
    disk::{Disk, FileName},
    verify,
};
use leftfold_model::{
    Append, EventId, EventType, ExpectedRevision, NewEvent, Read, RecordedEvent, StreamName, Tag,
    Timestamp,
};
use leftfold_sim::SimDisk;

type Files = Vec<(FileName, Vec<u8>)>;

#[derive(Debug)]
struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1)
    }
}

fn open(disk: &SimDisk) -> Result<Core, String> {
    let options = LogOptions::default()
        .with_segment_bytes(4_096)
        .with_segment_events(12)
        .with_log_id([5; 16]);
    Core::open(Arc::new(disk.clone()), options, Arc::new(StillClock))
        .map_err(|error| format!("{error:?}"))
}

/// Everything a reader can ask of the log: all, one stream by the index, the list of streams.
fn everything(disk: &SimDisk) -> Result<Vec<RecordedEvent>, String> {
    let core = open(disk)?;
    let text = |error: leftfold_log::ReadError| format!("{error:?}");
    let mut events = Vec::new();
    for read in [Read::all(), Read::stream(StreamName::new("a-1").unwrap())] {
        let mut cursor = core.reader().read(&read).map_err(text)?;
        while let Some(batch) = cursor.next_batch().map_err(text)? {
            events.extend(batch);
        }
    }
    let listed = core
        .reader()
        .streams("", None)
        .map_err(text)?
        .next_batch(10)
        .map_err(text)?;
    let counted: u64 = listed.iter().map(|entry| entry.events).sum();
    assert!(
        counted == 26 || events.len() != 35,
        "streams are listed with {counted} events"
    );
    Ok(events)
}

/// A log of three segments, stopped cleanly, and its events.
fn small_log() -> (Files, Vec<RecordedEvent>) {
    let disk = SimDisk::new();
    let mut core = open(&disk).unwrap();
    for n in 0..26_u64 {
        let event = NewEvent::json(EventType::new("T").unwrap(), format!("{{\"n\":{n}}}"))
            .with_id(EventId::from_bytes(u128::from(n + 1).to_le_bytes()))
            .with_tags([Tag::new(format!("n:{}", n % 3)).unwrap()])
            .unwrap();
        let stream = StreamName::new(if n % 3 == 0 { "a-1" } else { "b-2" }).unwrap();
        core.commit(&[Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap()])
            .remove(0)
            .unwrap();
    }
    while core.maintain().unwrap() {}
    core.close().unwrap();
    let events = everything(&SimDisk::holding(&disk.contents())).unwrap();
    assert_eq!(events.len(), 26 + 9);
    (disk.contents(), events)
}

/// Opens, reads and verifies the log with one file replaced.
#[track_caller]
fn check(files: &Files, name: &FileName, damaged: &[u8], expected: &[RecordedEvent], what: &str) {
    let replace = |(other, bytes): &(FileName, Vec<u8>)| {
        (
            *other,
            if other == name {
                damaged.to_vec()
            } else {
                bytes.clone()
            },
        )
    };
    let files: Files = files.iter().map(replace).collect();
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::holding(&files));
    let verified = verify(&disk, &mut |_| {});
    if let Ok(events) = everything(&SimDisk::holding(&files)) {
        assert!(
            events == expected,
            "{name}, {what}: other events than were stored"
        );
    } else {
        assert!(
            verified.is_err(),
            "{name}, {what}: reading fails, verifying does not"
        );
    }
}

/// The part of a file that is looked at: all but the zeros that wait for more events.
fn used(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 24)
        .min(bytes.len())
}

#[test]
fn any_flipped_bit_gives_the_same_events_or_an_error() {
    let (files, expected) = small_log();
    let mut flips = 0;
    for (name, bytes) in &files {
        for bit in 0..used(bytes) * 8 {
            let mut damaged = bytes.clone();
            if let Some(byte) = damaged.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            check(
                &files,
                name,
                &damaged,
                &expected,
                &format!("bit {bit} flipped"),
            );
            flips += 1;
        }
    }
    println!("{flips} flips in {} files", files.len());
}

#[test]
fn any_cut_of_any_file_gives_the_same_events_or_an_error() {
    let (files, expected) = small_log();
    for (name, bytes) in &files {
        for length in 0..used(bytes) {
            let cut = bytes.get(..length).unwrap_or_default();
            check(
                &files,
                name,
                cut,
                &expected,
                &format!("cut to {length} bytes"),
            );
        }
    }
}

#[test]
fn garbage_behind_any_file_gives_the_same_events_or_an_error() {
    let (files, expected) = small_log();
    for (name, bytes) in &files {
        for garbage in [&[0; 100][..], &[255; 100], b"LEFTFOLD"] {
            let longer = [bytes, garbage].concat();
            check(&files, name, &longer, &expected, "garbage behind it");
        }
    }
}
