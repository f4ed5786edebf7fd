//! Verifying a log: reads every byte and compares the index with the events.
//!
//! **Owns:** [`verify`] and its report. **Does not know:** how to repair; it changes nothing.
//! **Invariants:** records are trusted if their checksums match, and the index if it agrees with the records; memory is the
//! index of one segment.

use std::{collections::HashMap, sync::Arc};

use leftfold_model::{Position, StreamName};

use crate::{
    cache::FileCache,
    disk::{Disk, FileKind, FileName},
    error::StorageError,
    index::{IndexFile, IndexSnapshot, MemIndex, Scan as IndexScan, Term},
    record::{Checksum, LogId, header::SegmentHeader},
    recover::{Inventory, Marker, OpenError, ScannedSegment, read_header, scan_segment},
    segment::{Locations, Segment, locations, scan::Scan},
};

/// What verifying found in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments read, every frame checked.
    pub segments: u64,
    /// Events in them, erased ones included.
    pub events: u64,
    /// Events of which only the place is left.
    pub erased: u64,
    /// Bytes of frames read.
    pub log_bytes: u64,
    /// Location files compared with the log.
    pub locations: u64,
    /// Index files compared with the log.
    pub indexes: u64,
    /// Terms in them.
    pub terms: u64,
    /// Postings in them.
    pub postings: u64,
    /// Segments whose index is not written yet, or was found damaged; the next open writes it.
    pub without_index: u64,
    /// Bytes of an append that was never acknowledged, at the end of the log; the next open cuts and saves them.
    pub torn_bytes: u64,
}

/// Blocks of index files are read once, but a block of locations serves many events.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Reads and verifies every byte of the log on this disk. `progress` gets the number of events read so far.
///
/// # Errors
/// [`OpenError`]: the log is in use, or damaged; damage names the file and the byte offset.
pub fn verify(
    disk: &Arc<dyn Disk>,
    progress: &mut dyn FnMut(u64),
) -> Result<VerifyReport, OpenError> {
    let _lock = disk.lock()?;
    let inventory = Inventory::of(disk.as_ref())?;
    let handles = Arc::new(FileCache::over(Arc::clone(disk), CACHE_BYTES));
    let mut report = VerifyReport::default();
    let Some((&first, &generation)) = inventory.segments.first_key_value() else {
        return if inventory.is_empty() {
            Ok(report)
        } else {
            Err(missing(Position::FIRST).into())
        };
    };
    let mut newest = read_header(&handles, first, generation)?;
    let log = newest.log;
    let mut checker = Checker {
        handles: &handles,
        log,
        inventory: &inventory,
        open: Vec::new(),
        indexes: Vec::new(),
    };
    checker.open_indexes()?;
    let mut next = Position::FIRST;
    for (&first, &generation) in &inventory.segments {
        let header = read_header(&handles, first, generation)?;
        let name = FileName::of(FileKind::Segment { first, generation });
        let of_place = (header.first, header.generation) == (first, generation);
        if header.log != log || !of_place || first != next {
            let what = format!("the segment should begin at position {next} of the same log");
            return Err(StorageError::corrupt(&name, 0, what).into());
        }
        next = checker.segment(&name, &header, &mut report)?;
        newest = header;
        progress(report.events);
    }
    if let Some(lost) = inventory.successor(&handles, &newest, next)? {
        return Err(lost.error().into());
    }
    checker.finish(&mut report)?;
    Ok(report)
}

fn missing(first: Position) -> StorageError {
    StorageError::corrupt(
        &FileName::of(FileKind::Segment {
            first,
            generation: 0,
        }),
        0,
        "the segment is missing",
    )
}

struct Checker<'a> {
    handles: &'a Arc<FileCache>,
    log: LogId,
    inventory: &'a Inventory,
    /// Index files to compare, by their range, with the postings counted in the log so far.
    open: Vec<(Arc<IndexFile>, u64)>,
    /// The index files of `open`, for looking up how many events a stream had before a segment.
    indexes: Vec<Arc<IndexFile>>,
}

impl Checker<'_> {
    /// Opens the widest undamaged index files that end where a segment does.
    ///
    /// The next open rebuilds a damaged one. It removes one that ends inside a segment, which was flushed before the segment
    /// grew.
    fn open_indexes(&mut self) -> Result<(), StorageError> {
        let mut covered = Position::START;
        for &range in &self.inventory.indexes {
            let ends_a_segment = self.inventory.segments.contains_key(&range.1.next());
            if range.0 <= covered || !ends_a_segment {
                continue;
            }
            match IndexFile::open(self.handles, self.log, range) {
                Ok(index_file) => {
                    covered = range.1;
                    let index_file = Arc::new(index_file);
                    self.open.push((Arc::clone(&index_file), 0));
                    self.indexes.push(index_file);
                }
                Err(error) if error.is_corruption() => {}
                // What ends an opening is nothing that an opening rebuilds.
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn is_newest(&self, first: Position) -> bool {
        let newest = self.inventory.segments.last_key_value();
        newest.is_some_and(|(&newest, _)| newest == first)
    }

    /// Checks one segment; gives the position behind it.
    fn segment(
        &mut self,
        name: &FileName,
        header: &SegmentHeader,
        report: &mut VerifyReport,
    ) -> Result<Position, StorageError> {
        let first = header.first;
        let file = self.handles.get(name)?;
        let mut scan = Scan::of(file.as_ref(), *name, Checksum::of(self.log), first)?;
        let mut revisions = Revisions {
            older: self.older(first),
            next: HashMap::new(),
        };
        let gathered = scan_segment(&mut scan, name, first, &mut |event| revisions.check(event))?;
        self.check_end(name, &mut scan, &gathered, report)?;
        gathered.check_erased(name, header)?;
        report.segments += 1;
        report.erased += u64::from(gathered.erased.events);
        report.events += gathered.growing.offsets.len() as u64;
        report.log_bytes += gathered.end;
        self.check_locations(header, &gathered, report)?;
        self.check_index(&gathered, first, report)?;
        Ok(gathered.next)
    }

    /// The index files of what lies before a position, for counting revisions on.
    fn older(&self, first: Position) -> Option<IndexSnapshot> {
        let older: Vec<_> = self
            .indexes
            .iter()
            .filter(|index_file| index_file.last() < first)
            .cloned()
            .collect();
        let complete = older
            .last()
            .map_or(Position::START, |index_file| index_file.last())
            .next()
            == first;
        complete.then(|| IndexSnapshot {
            index_files: older.into(),
            tails: [].into(),
        })
    }

    fn check_end(
        &self,
        name: &FileName,
        scan: &mut Scan<'_>,
        gathered: &ScannedSegment,
        report: &mut VerifyReport,
    ) -> Result<(), StorageError> {
        let data_end = scan.end_of_data(gathered.end)?;
        let FileKind::Segment { first, generation } = name.kind() else {
            return Ok(());
        };
        let newest = self.is_newest(first);
        let marker = Marker::read_if(self.inventory.marker, self.handles, self.log)?;
        if marker.is_some_and(|marker| !self.inventory.segments.contains_key(&marker.first)) {
            return Err(missing(marker.map_or(first, |marker| marker.first)));
        }
        let promised =
            marker.filter(|marker| (marker.first, marker.generation) == (first, generation));
        let cut_short = promised.is_some_and(|marker| gathered.end < marker.end);
        let damaged =
            data_end > gathered.end && (!newest || scan.proof_of_damage(gathered.end)?.is_some());
        if cut_short || damaged {
            return Err(StorageError::corrupt(name, gathered.end, gathered.why));
        }
        report.torn_bytes += data_end - gathered.end;
        Ok(())
    }

    fn check_locations(
        &self,
        header: &SegmentHeader,
        gathered: &ScannedSegment,
        report: &mut VerifyReport,
    ) -> Result<(), StorageError> {
        let first = header.first;
        let kind = locations::kind(first, header.generation, header.erased);
        let name = FileName::of(kind);
        // What the newest segment has is damaged or of another length; the next open removes it.
        if self.is_newest(first) || !self.inventory.locations.contains(&name) {
            return Ok(());
        }
        let sealed = Locations::File(locations::open(self.handles, header)?);
        let offsets = &gathered.growing.offsets;
        if (sealed.count() as usize, sealed.end()) != (offsets.len(), gathered.growing.end) {
            return Err(StorageError::corrupt(
                &name,
                0,
                "the file does not fit its segment",
            ));
        }
        let sealed = Segment::of(header, sealed);
        let mut reader = sealed.location_reader(self.handles);
        let positions: Vec<Position> = (0..offsets.len() as u64)
            .map(|n| first.saturating_add(n))
            .collect();
        let mut stored = Vec::with_capacity(positions.len());
        reader.of(&positions, &mut stored)?;
        for ((&offset, (start, _)), position) in offsets.iter().zip(stored).zip(positions) {
            if start != u64::from(offset) {
                let what =
                    format!("the location of position {position} is not where its record is");
                return Err(StorageError::corrupt(&name, 0, what));
            }
        }
        report.locations += 1;
        Ok(())
    }

    fn check_index(
        &mut self,
        gathered: &ScannedSegment,
        first: Position,
        report: &mut VerifyReport,
    ) -> Result<(), StorageError> {
        let last = gathered.next.previous();
        let covering = self
            .open
            .iter_mut()
            .find(|(index_file, _)| index_file.first() <= first && last <= index_file.last());
        let Some((index_file, counted)) = covering else {
            report.without_index += u64::from(!self.is_newest(first));
            return Ok(());
        };
        *counted += compare(index_file, &gathered.tail, (first, last))?;
        Ok(())
    }

    /// Checks what no single segment shows: that index files hold nothing else, and their filters.
    fn finish(&self, report: &mut VerifyReport) -> Result<(), StorageError> {
        for (index_file, counted) in &self.open {
            index_file.check_filter()?;
            let mut scan = IndexScan::from(Arc::clone(index_file), &[]);
            let mut terms = 0;
            while scan.next()?.is_some() {
                terms += 1;
            }
            if (terms, *counted) != (index_file.terms(), index_file.postings()) {
                let what = format!(
                    "the file holds {} postings, the log {counted}",
                    index_file.postings()
                );
                return Err(StorageError::corrupt(index_file.name(), 0, what));
            }
            report.indexes += 1;
            report.terms += terms;
            report.postings += counted;
        }
        Ok(())
    }
}

/// Compares an index file with the terms of one segment; gives how many postings they have.
fn compare(
    index_file: &IndexFile,
    tail: &MemIndex,
    (first, last): (Position, Position),
) -> Result<u64, StorageError> {
    let mut counted = 0;
    for of_tail in tail.shards().sorted() {
        let (term, expected): (_, Vec<u64>) = (of_tail.term, of_tail.positions().collect());
        counted += expected.len() as u64;
        let found = postings_between(index_file, term, first, last)?;
        if found != expected {
            let name = String::from_utf8_lossy(term.name()).into_owned();
            let what = format!(
                "the postings of {name:?} from position {first} to {last} are not those of the log"
            );
            return Err(StorageError::corrupt(index_file.name(), 0, what));
        }
    }
    Ok(counted)
}

fn postings_between(
    index_file: &IndexFile,
    term: &Term,
    first: Position,
    last: Position,
) -> Result<Vec<u64>, StorageError> {
    let mut found = Vec::new();
    let Some(entry) = index_file.entry(term.as_bytes())? else {
        return Ok(found);
    };
    let mut from = first.get();
    while let Some(chunk) = index_file.chunk_after(&entry, from)? {
        found.extend(
            chunk
                .positions
                .iter()
                .copied()
                .filter(|&p| p >= from && p <= last.get()),
        );
        match chunk.positions.last() {
            Some(&end) if end < last.get() => from = end + 1,
            _ => break,
        }
    }
    Ok(found)
}

/// Checks that the revisions of every stream follow each other.
struct Revisions {
    /// The index of everything before the segment; `None` if it is incomplete, then first revisions are believed.
    older: Option<IndexSnapshot>,
    next: HashMap<StreamName, u64>,
}

impl Revisions {
    fn check(&mut self, event: &leftfold_model::RecordedEvent) -> Result<(), String> {
        let found = event.revision.get();
        let expected = match (self.next.get(&event.stream), &self.older) {
            (Some(&next), _) => next,
            (None, Some(older)) => {
                let events = older.stream_events(&Term::stream(&event.stream), Position::MAX);
                events.map_err(|error| error.to_string())?
            }
            (None, None) => found,
        };
        self.next.insert(event.stream.clone(), found + 1);
        if found == expected {
            return Ok(());
        }
        Err(format!(
            "event {} of stream {} has revision {found}, not {expected}",
            event.position, event.stream
        ))
    }
}
