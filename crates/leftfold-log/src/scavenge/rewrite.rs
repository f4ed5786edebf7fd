//! Rewriting a segment without the data of erased events.
//!
//! **Owns:** [`rewrite`] and [`install`]: the contents of a rewritten segment, and the steps that replace the old file.
//! **Does not know:** views; who reads the old file meanwhile.
//! **Invariants:** frames, positions and names stay; memory is one frame and a window of names; the whole old file is read
//! and verified before anything is written; the new file is synced and read back before it is renamed.

use std::sync::Arc;

use bytes::Bytes;
use leftfold_model::Position;

use super::{ScavengeError, ScavengeOptions, TruncationSet};
use crate::{
    atomic_file::{AtomicFile, sync_dir},
    cache::FileCache,
    disk::{FileKind, FileName},
    error::StorageError,
    planted::{self, Planted},
    record::{
        Checksum, LogId, event,
        frame::{self, FrameHeader},
        header::{Erased, SegmentHeader},
        names::NameResolver,
    },
    segment::{
        Locations, Segment,
        locations::{self, Growing},
        scan::{Scan, Step},
    },
};

/// Bytes that are gathered before they are written.
const WINDOW_BYTES: usize = 1024 * 1024;

/// Told of bytes before they are read or written; may wait, or end it all.
pub(crate) type Throttle<'a> = &'a dyn Fn(u64) -> Result<(), ScavengeError>;

/// A rewritten segment, durable under its temporary name.
#[derive(Debug)]
pub(crate) struct Rewritten<'a> {
    file: AtomicFile<'a>,
    header: SegmentHeader,
    growing: Growing,
    /// How many events were erased that were not before.
    pub(crate) events: u64,
    /// Bytes that the rewrite frees.
    pub(crate) bytes: u64,
}

/// Rewrites a sealed segment without the data and metadata of truncated events. Returns `None`, having written nothing, if
/// that would free too little.
pub(crate) fn rewrite<'a>(
    handles: &'a FileCache,
    log: LogId,
    segment: &Segment,
    truncations: &TruncationSet,
    options: ScavengeOptions,
    pace: Throttle<'_>,
) -> Result<Option<Rewritten<'a>>, ScavengeError> {
    let mut survey = Survey::default();
    walk(
        handles,
        log,
        segment,
        truncations,
        pace,
        &mut |_, records| {
            records.iter().for_each(|record| survey.take(record));
            Ok(())
        },
    )?;
    if survey.events == 0 || survey.bytes < options.segment_bytes_min {
        return Ok(None);
    }
    let Some(generation) = segment.generation.checked_add(1) else {
        return Ok(None);
    };
    let header = SegmentHeader {
        generation,
        erased: survey.erased,
        ..segment.header(log)
    };
    let (file, growing) = write(handles, segment, truncations, &header, pace)?;
    read_back(handles, &header, &growing, pace)?;
    Ok(Some(Rewritten {
        file,
        header,
        events: survey.events,
        bytes: u64::from(segment.locations.end().saturating_sub(growing.end)),
        growing,
    }))
}

fn kind(header: &SegmentHeader) -> FileKind {
    FileKind::Segment {
        first: header.first,
        generation: header.generation,
    }
}

/// A record of the old file.
#[derive(Debug)]
struct Old {
    position: Position,
    bytes: Bytes,
    /// Whether its event is under a cut, and whether it was erased before.
    goes: bool,
    was_erased: bool,
}

/// What is done with a frame of the old file.
type Each<'a> = &'a mut dyn FnMut(&FrameHeader, &[Old]) -> Result<(), ScavengeError>;

/// What a rewrite would come to.
#[derive(Debug, Default)]
struct Survey {
    erased: Erased,
    events: u64,
    bytes: u64,
}

impl Survey {
    fn take(&mut self, record: &Old) {
        if record.goes || record.was_erased {
            self.erased.add(record.position);
        }
        if record.goes && !record.was_erased {
            self.events += 1;
            self.bytes += event::erasable_bytes(&record.bytes);
        }
    }
}

/// Walks over the frames of a sealed segment and checks that they are all there.
fn walk(
    handles: &FileCache,
    log: LogId,
    segment: &Segment,
    truncations: &TruncationSet,
    pace: Throttle<'_>,
    each: Each<'_>,
) -> Result<(), ScavengeError> {
    let (file, name) = (segment.file(handles)?, segment.name());
    let mut scan = Scan::of(file.as_ref(), name, Checksum::of(log), segment.first)?;
    let (mut known, mut erased) = (NameResolver::default(), Erased::default());
    let mut records = Vec::new();
    loop {
        let (header, frame) = match scan.step()? {
            Step::Frame(_, header, frame) => (header, frame),
            Step::End(end, why) => {
                let count = scan.next_position().get() - segment.first.get();
                let is_whole = end == u64::from(segment.locations.end())
                    && count == u64::from(segment.locations.count());
                let what = match is_whole {
                    true if erased == segment.erased => return Ok(()),
                    true => "other events are erased than the header speaks of",
                    false => why,
                };
                return Err(StorageError::corrupt(&name, end, what).into());
            }
        };
        pace(header.frame_bytes() as u64)?;
        records.clear();
        for (position, at, bytes) in frame {
            let looked = event::parse(&bytes).and_then(|record| {
                let names = known.resolve(position, &record.naming)?;
                let goes = truncations.covers(&names.stream, record.revision());
                Ok((goes, record.is_erased))
            });
            let looked = looked.map_err(|m| StorageError::corrupt(&name, at, m.what));
            let (goes, was_erased) = looked?;
            if was_erased {
                erased.add(position);
            }
            records.push(Old {
                position,
                bytes,
                goes,
                was_erased,
            });
        }
        each(&header, &records)?;
    }
}

/// A file that is written from front to end.
struct Output<'a> {
    file: AtomicFile<'a>,
    /// What is gathered, and how much was written before it.
    window: Vec<u8>,
    written: u64,
}

impl Output<'_> {
    fn at(&self) -> u64 {
        self.written + self.window.len() as u64
    }

    fn flush(&mut self, pace: Throttle<'_>) -> Result<(), ScavengeError> {
        pace(self.window.len() as u64)?;
        self.file.write_at(&self.window, self.written)?;
        self.written = self.at();
        self.window.clear();
        Ok(())
    }
}

/// Writes the new file under its temporary name and makes it durable.
fn write<'a>(
    handles: &'a FileCache,
    segment: &Segment,
    truncations: &TruncationSet,
    header: &SegmentHeader,
    pace: Throttle<'_>,
) -> Result<(AtomicFile<'a>, Growing), ScavengeError> {
    let mut output = Output {
        file: handles.create(kind(header))?,
        window: header.encode().to_vec(),
        written: 0,
    };
    let seal = Checksum::of(header.log);
    let mut offsets = Vec::new();
    walk(
        handles,
        header.log,
        segment,
        truncations,
        pace,
        &mut |frame, records| {
            let start = frame::begin(&mut output.window);
            for record in records {
                let at = output.at();
                offsets.push(u32::try_from(at).unwrap_or(u32::MAX));
                if record.goes {
                    let erased =
                        event::erase(&mut output.window, seal, record.position, &record.bytes);
                    erased.map_err(|m| StorageError::corrupt(&segment.name(), at, m.what))?;
                } else {
                    output.window.extend_from_slice(&record.bytes);
                }
            }
            // Everything in front of a frame is durable before the file gets its name.
            frame::finish(&mut output.window, start, seal, frame.first, frame.count, 0);
            if output.window.len() >= WINDOW_BYTES {
                output.flush(pace)?;
            }
            Ok(())
        },
    )?;
    output.flush(pace)?;
    if !planted::is(Planted::RewriteNotSynced) {
        output.file.sync()?;
    }
    let growing = Growing {
        offsets,
        end: u32::try_from(output.written).unwrap_or(u32::MAX),
    };
    Ok((output.file, growing))
}

/// Reads the new file and checks that it holds the same positions, each record where it was put, the right ones erased.
fn read_back(
    handles: &FileCache,
    header: &SegmentHeader,
    growing: &Growing,
    pace: Throttle<'_>,
) -> Result<(), ScavengeError> {
    let name = FileName::temporary(kind(header));
    let file = handles.open_apart(&name)?;
    let mut scan = Scan::of(file.as_ref(), name, Checksum::of(header.log), header.first)?;
    let mut expected = growing.offsets.iter().map(|&offset| u64::from(offset));
    let mut erased = Erased::default();
    loop {
        match scan.step()? {
            Step::Frame(_, frame, records) => {
                pace(frame.frame_bytes() as u64)?;
                for (position, at, record) in records {
                    let parsed = event::parse(&record);
                    let parsed = parsed.map_err(|m| StorageError::corrupt(&name, at, m.what))?;
                    if parsed.is_erased {
                        erased.add(position);
                    }
                    if expected.next() != Some(at) {
                        let what = "a record does not lie where it was written";
                        return Err(StorageError::corrupt(&name, at, what).into());
                    }
                }
            }
            Step::End(end, why) => {
                let is_whole = end == u64::from(growing.end) && end == scan.size();
                if is_whole && expected.next().is_none() && erased == header.erased {
                    return Ok(());
                }
                return Err(StorageError::corrupt(&name, end, why).into());
            }
        }
    }
}

/// Renames a rewritten segment and writes its locations file, durably; then calls `show`, which publishes it to new readers;
/// then removes the old files. An error before that leaves the old segment in place.
pub(crate) fn install(
    handles: &FileCache,
    old: &Segment,
    rewritten: Rewritten<'_>,
    show: impl FnOnce(Arc<Segment>),
) -> Result<(), StorageError> {
    let header = rewritten.header;
    let located = name(handles, old, rewritten).inspect_err(|_| {
        let located = locations::kind(header.first, header.generation, header.erased);
        for kind in [kind(&header), located] {
            // What cannot be removed now is removed by the next open, or is the whole segment and counts then.
            let _ = handles.disk().remove(&FileName::of(kind));
        }
    })?;
    let new = Arc::new(Segment::of(&header, Locations::File(located)));
    if !planted::is(Planted::RewrittenNotLedOn) {
        old.replace(Arc::clone(&new));
    }
    show(new);
    if planted::is(Planted::OldRemovedBeforeNewIsDurable) {
        return Ok(());
    }
    remove(handles, old)
}

fn name(
    handles: &FileCache,
    old: &Segment,
    rewritten: Rewritten<'_>,
) -> Result<locations::Sealed, StorageError> {
    let (disk, header) = (handles.disk().as_ref(), rewritten.header);
    let located = locations::write(handles, &header, &rewritten.growing)?;
    rewritten.file.rename()?;
    if planted::is(Planted::OldRemovedBeforeNewIsDurable) {
        remove(handles, old)?;
    }
    sync_dir(disk)?;
    Ok(located)
}

/// Removes the files of a segment that another one took the place of.
fn remove(handles: &FileCache, old: &Segment) -> Result<(), StorageError> {
    let remove = |name: FileName| {
        let removed = handles.disk().remove(&name);
        handles.forget(&name);
        removed.map_err(|e| StorageError::io("remove", &name, e))
    };
    let (segment, locations) = (remove(old.name()), remove(old.locations_name()));
    segment.and(locations)
}
