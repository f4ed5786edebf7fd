//! Opening the newest segment: finding its end, and verifying what is before it.
//!
//! **Owns:** distinguishing a clean end, a torn tail and damage. **Does not know:** older segments.
//! **Invariants:** see [`super`]. After an unclean stop the good frames are copied to a new file. This answers failed syncs
//! whose data a later reader still sees in the system's cache (Rebello et al., Can Applications Recover from fsync Failures?,
//! 2020).

use std::{
    collections::VecDeque,
    sync::{Arc, RwLock},
};

use leftfold_model::{EventId, Position, RecordedEvent, Revision, StreamName};

use super::{Marker, OpenReport, error::OpenError, inventory::Inventory, remove_if_there};
use crate::{
    atomic_file::sync_dir,
    cache::FileCache,
    disk::{Disk, DiskFile, FileKind, FileName},
    error::StorageError,
    index::{MemIndex, TermKind, write_term},
    limits::{LogOptions, RECENT_IDS},
    planted::{self, Planted},
    record::{
        Checksum,
        event::{self, EventRef},
        header::{Erased, SEGMENT_HEADER_BYTES, SegmentHeader},
        names::NameResolver,
    },
    segment::{
        Locations, Segment, create,
        locations::Growing,
        scan::{Scan, Step},
    },
};

/// The newest segment, ready for more.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) tail: MemIndex,
    pub(crate) recent: VecDeque<Recent>,
    pub(crate) next: Position,
    pub(crate) end: u64,
    pub(crate) capacity: u64,
}

impl Active {
    /// With the bytes that its file has now.
    pub(super) fn measured(self, handles: &FileCache) -> Result<Self, StorageError> {
        let name = self.segment.name();
        let size = handles.get(&name)?.size();
        let capacity = size.map_err(|e| StorageError::io("measure", &name, e))?;
        Ok(Self { capacity, ..self })
    }
}

/// Locations of a segment without events.
pub(crate) fn empty_locations() -> Locations {
    let end = u32::try_from(SEGMENT_HEADER_BYTES).unwrap_or(u32::MAX);
    Locations::Memory(Arc::new(RwLock::new(Growing {
        offsets: Vec::new(),
        end,
    })))
}

/// An event, as far as the window of recent ids needs it.
#[derive(Debug)]
pub(crate) struct Recent {
    pub(crate) id: EventId,
    pub(crate) position: Position,
    pub(crate) stream: StreamName,
    pub(crate) revision: Revision,
}

impl Recent {
    pub(crate) fn of(event: &EventRef<'_>) -> Result<Self, StorageError> {
        let stream = StreamName::new(event.stream);
        Ok(Self {
            id: event.id,
            position: event.position,
            stream: stream.map_err(|_| {
                let name = FileName::of(FileKind::Lock);
                StorageError::corrupt(&name, 0, "a stream name is over the limit")
            })?,
            revision: event.revision,
        })
    }
}

/// Everything a walk over a segment gathers.
#[derive(Debug)]
pub(crate) struct ScannedSegment {
    pub(crate) tail: MemIndex,
    pub(crate) growing: Growing,
    pub(crate) recent: VecDeque<Recent>,
    /// Which events are erased.
    pub(crate) erased: Erased,
    pub(crate) next: Position,
    /// Offset behind the last good frame, and why there is none.
    pub(crate) end: u64,
    pub(crate) why: &'static str,
}

/// Walks over a segment and gathers what its index and the deciding of appends need.
///
/// `check` may refuse an event, in words; that is reported as damage.
pub(crate) fn scan_segment(
    scan: &mut Scan<'_>,
    name: &FileName,
    first: Position,
    check: &mut dyn FnMut(&RecordedEvent) -> Result<(), String>,
) -> Result<ScannedSegment, StorageError> {
    let mut gathered = ScannedSegment {
        tail: MemIndex::new(first),
        growing: Growing::default(),
        recent: VecDeque::new(),
        erased: Erased::default(),
        next: first,
        end: SEGMENT_HEADER_BYTES as u64,
        why: "",
    };
    let (mut term, mut known) = (Vec::new(), NameResolver::default());
    loop {
        match scan.step()? {
            Step::Frame(offset, header, records) => {
                for (position, at, record) in records {
                    let event = event::parse(&record).and_then(|parsed| {
                        if parsed.is_erased {
                            gathered.erased.add(position);
                        }
                        let names = known.resolve(position, &parsed.naming)?;
                        Ok(event::decode(&record, &parsed, position, names))
                    });
                    let event = event.map_err(|m| StorageError::corrupt(name, at, m.what))?;
                    check(&event).map_err(|what| StorageError::corrupt(name, at, what))?;
                    index(&gathered.tail, &mut term, &event);
                    gathered
                        .growing
                        .offsets
                        .push(u32::try_from(at).unwrap_or(u32::MAX));
                    gathered.recent.push_back(Recent {
                        id: event.id,
                        position,
                        stream: event.stream,
                        revision: event.revision,
                    });
                    if gathered.recent.len() > RECENT_IDS {
                        gathered.recent.pop_front();
                    }
                }
                gathered.end = offset + header.frame_bytes() as u64;
            }
            Step::End(hole, why) => {
                if scan.jump(hole)? {
                    continue;
                }
                gathered.why = why;
                gathered.next = scan.next_position();
                gathered.growing.end = u32::try_from(gathered.end).unwrap_or(u32::MAX);
                return Ok(gathered);
            }
        }
    }
}

impl ScannedSegment {
    /// Checks that the erased events are those that the segment's header speaks of.
    pub(crate) fn check_erased(
        &self,
        name: &FileName,
        header: &SegmentHeader,
    ) -> Result<(), StorageError> {
        if self.erased == header.erased {
            return Ok(());
        }
        let what = format!(
            "{} events are erased, but not the {} that the header speaks of",
            self.erased.events, header.erased.events
        );
        Err(StorageError::corrupt(name, 0, what))
    }
}

/// Adds a stored event to a tail. The first event of a stream in a segment tells how many came before.
fn index(tail: &MemIndex, term: &mut Vec<u8>, event: &RecordedEvent) {
    write_term(term, TermKind::Stream, event.stream.as_str());
    tail.add(term, event.position, event.revision.get());
    write_term(term, TermKind::Category, event.stream.category_str());
    tail.add(term, event.position, 0);
    write_term(term, TermKind::Type, event.event_type.as_str());
    tail.add(term, event.position, 0);
    for tag in &event.tags {
        write_term(term, TermKind::Tag, tag.as_str());
        tail.add(term, event.position, 0);
    }
}

/// Whether the name of the newest segment may not be durable: it holds nothing, and no clean stop tells of it. A failed sync of
/// the directory forgets a name, and later syncs do not report that; a name that came before an event was synced.
pub(super) fn has_unsure_name(
    handles: &FileCache,
    header: &SegmentHeader,
    marker: Option<Marker>,
) -> Result<bool, StorageError> {
    let (first, generation) = (header.first, header.generation);
    if marker.is_some_and(|marker| (marker.first, marker.generation) == (first, generation)) {
        return Ok(false);
    }
    let name = FileName::of(FileKind::Segment { first, generation });
    let file = handles.get(&name)?;
    let mut scan = Scan::of(file.as_ref(), name, Checksum::of(header.log), first)?;
    let holds_events = matches!(scan.step()?, Step::Frame(..));
    Ok(!holds_events && scan.end_of_data(scan.offset())? <= scan.offset())
}

/// Opens the newest segment.
pub(crate) fn open(
    handles: &Arc<FileCache>,
    header: &SegmentHeader,
    inventory: &Inventory,
    marker: Option<Marker>,
    options: &LogOptions,
    report: &mut OpenReport,
) -> Result<Active, OpenError> {
    let (first, generation) = (header.first, header.generation);
    check_marker_is_not_ahead(marker, inventory)?;
    let name = FileName::of(FileKind::Segment { first, generation });
    let file = handles.get(&name)?;
    // Brings to light an error that the system still holds for an earlier, failed write.
    file.sync_data()
        .map_err(|e| StorageError::io("sync", &name, e))?;
    let mut scan = Scan::of(file.as_ref(), name, Checksum::of(header.log), first)?;
    let size = scan.size();
    let scanned = scan_segment(&mut scan, &name, first, &mut |_| Ok(()))?;
    scanned.check_erased(&name, header)?;
    let here = marker.filter(|marker| (marker.first, marker.generation) == (first, generation));
    report.clean = is_clean_stop(&name, &scanned, here)?;
    if let Some(lost) = inventory.successor(handles, header, scanned.next)? {
        return Err(lost.error().into());
    }
    remove_locations(handles.disk().as_ref(), first, inventory)?;
    sync_dir(handles.disk().as_ref())?;
    if !report.clean {
        let torn = torn_tail_end(&mut scan, &name, &scanned)?;
        // A log that is only read would keep the bytes in memory, and its file has them still.
        if let Some(to) = torn.filter(|_| !handles.disk().is_read_only()) {
            let save = || save_torn_tail(handles, file.as_ref(), &name, scanned.end, to);
            let saved = with_trimmed_room(file.as_ref(), &name, to, save)?;
            report.torn_tail = Some((to - scanned.end, saved));
        }
    }
    let (generation, capacity) = if report.clean || planted::is(Planted::TailNotCopied) {
        (generation, size)
    } else {
        let copy = || copy_forward(handles, header, scanned.end, options, inventory);
        with_trimmed_room(file.as_ref(), &name, scanned.end, copy)?
    };
    let locations = Locations::Memory(Arc::new(RwLock::new(scanned.growing)));
    let header = SegmentHeader {
        generation,
        ..*header
    };
    Ok(Active {
        segment: Arc::new(Segment::of(&header, locations)),
        tail: scanned.tail,
        recent: scanned.recent,
        next: scanned.next,
        end: scanned.end,
        capacity,
    })
}

/// Whether the segment ends exactly where the clean-stop marker of it says.
fn is_clean_stop(
    name: &FileName,
    scanned: &ScannedSegment,
    marker: Option<Marker>,
) -> Result<bool, StorageError> {
    let Some(marker) = marker else {
        return Ok(false);
    };
    if planted::is(Planted::MarkerBelieved) {
        return Ok(true);
    }
    if scanned.end < marker.end {
        return Err(StorageError::corrupt(name, scanned.end, scanned.why));
    }
    // Nothing was written since the marker was, so what follows is zeros.
    Ok(marker.end == scanned.end && marker.next == scanned.next)
}

/// Where the torn tail ends, if there is one. A tail that a sync had covered is damage.
fn torn_tail_end(
    scan: &mut Scan<'_>,
    name: &FileName,
    scanned: &ScannedSegment,
) -> Result<Option<u64>, StorageError> {
    let data_end = scan.end_of_data(scanned.end)?;
    if data_end <= scanned.end {
        return Ok(None);
    }
    if let Some(proof) = scan.proof_of_damage(scanned.end)? {
        let what = format!(
            "{}, but the frame at byte {proof} shows that it was synced",
            scanned.why
        );
        return Err(StorageError::corrupt(name, scanned.end, what));
    }
    Ok(Some(data_end))
}

/// Removes the locations files of the newest segment, which are damaged or of another length: as soon as the segment grows they
/// are wrong.
fn remove_locations(
    disk: &dyn Disk,
    newest: Position,
    inventory: &Inventory,
) -> Result<(), StorageError> {
    for name in inventory.locations_of(newest) {
        remove_if_there(disk, name)?;
    }
    Ok(())
}

/// A marker of a segment that is not there means that the newest segments are missing.
fn check_marker_is_not_ahead(
    marker: Option<Marker>,
    inventory: &Inventory,
) -> Result<(), StorageError> {
    match marker {
        Some(marker) if !inventory.segments.contains_key(&marker.first) => {
            let kind = FileKind::Segment {
                first: marker.first,
                generation: marker.generation,
            };
            Err(StorageError::corrupt(
                &FileName::of(kind),
                0,
                "the segment is missing",
            ))
        }
        _ => Ok(()),
    }
}

/// Does a step that needs room. On a full disk it is done again with the room that is preallocated in the segment behind the
/// bytes to keep: a log that was killed on a full disk opens, if half of its newest segment is not used yet.
fn with_trimmed_room<T>(
    file: &dyn DiskFile,
    name: &FileName,
    keep: u64,
    step: impl Fn() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    match step() {
        Err(error) if error.is_full() => {
            trim(file, name, keep)?;
            step()
        }
        done => done,
    }
}

fn trim(file: &dyn DiskFile, name: &FileName, keep: u64) -> Result<(), StorageError> {
    let trimmed = file.set_len(keep).and_then(|()| file.sync_data());
    trimmed.map_err(|e| StorageError::io("shorten", name, e))
}

/// Gives the room back that is preallocated in the newest segment, before it is opened. What tells a torn tail from damage
/// stays.
pub(super) fn give_room_back(
    handles: &FileCache,
    header: &SegmentHeader,
) -> Result<(), StorageError> {
    /// More than the header of a frame, which may end with zeros.
    const ZEROS_KEPT: u64 = 4_096;
    let (first, generation) = (header.first, header.generation);
    let name = FileName::of(FileKind::Segment { first, generation });
    let file = handles.get(&name)?;
    let mut scan = Scan::of(file.as_ref(), name, Checksum::of(header.log), first)?;
    while let Step::Frame(..) = scan.step()? {}
    let data_end = scan.end_of_data(scan.offset())?;
    trim(file.as_ref(), &name, scan.size().min(data_end + ZEROS_KEPT))
}

/// Keeps the bytes that are about to be cut, for inspection.
fn save_torn_tail(
    handles: &FileCache,
    file: &dyn DiskFile,
    name: &FileName,
    from: u64,
    to: u64,
) -> Result<FileName, StorageError> {
    let FileKind::Segment { first, generation } = name.kind() else {
        return Ok(*name);
    };
    let kind = FileKind::TornTail { first, generation };
    let saved = handles.create(kind)?;
    saved.copy_from(file, name, from..to, 0)?;
    saved.sync()?;
    saved.persist()?;
    Ok(FileName::of(kind))
}

/// Writes the good frames into the segment's next generation and removes the old one. Gives generation and bytes.
fn copy_forward(
    handles: &FileCache,
    header: &SegmentHeader,
    end: u64,
    options: &LogOptions,
    inventory: &Inventory,
) -> Result<(u32, u64), StorageError> {
    let (first, generation) = (header.first, header.generation);
    let name = FileName::of(FileKind::Segment { first, generation });
    let capacity = options
        .bytes_of_segment(inventory.segments.len() - 1)
        .max(end);
    let disk = handles.disk().as_ref();
    let next = SegmentHeader {
        generation: next_generation(&name, generation)?,
        ..*header
    };
    let capacity = create::copy(handles, &next, (&name, end), capacity)?;
    handles.forget(&name);
    disk.remove(&name)
        .map_err(|e| StorageError::io("remove", &name, e))?;
    Ok((next.generation, capacity))
}

/// The generation that follows; there are more than four billion of them.
fn next_generation(name: &FileName, generation: u32) -> Result<u32, StorageError> {
    let next = generation.checked_add(1);
    next.ok_or_else(|| {
        StorageError::corrupt(name, 0, "its generation is the last one there can be")
    })
}
