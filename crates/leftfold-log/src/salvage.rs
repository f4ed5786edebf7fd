//! Getting out of a damaged log what is sound.
//!
//! **Owns:** [`salvage`] and its report; reading on behind bytes and files that the disk does not return. **Does not know:**
//! postings of indexes; how to mend a log; it changes nothing.
//! **Invariants:** what is given out matched its checksum at its position; every position that is not given out is named,
//! with the place where reading failed; bytes that cannot be read are damage, and no end; memory is one frame. Of a segment
//! only the newest generation is read: an older one, which a stopped scavenge left, holds what was erased.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use leftfold_model::{ErrorChain, Position};

use crate::{
    cache::FileCache,
    disk::{Disk, DiskFile, FileKind, FileName},
    error::StorageError,
    read::LogEntry,
    record::{
        Checksum, LogId, event,
        frame::FrameHeader,
        header::{Erased, SegmentHeader},
        names::NameResolver,
    },
    recover::{Inventory, Marker, OpenError, read_header},
    segment::scan::{SEGMENT_BYTES_MAX, Scan},
};

/// Bytes of blocks that are kept: nothing is read through them.
const CACHE_BYTES: usize = 0;

/// Positions without a sound event.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MissingRange {
    /// The first of them.
    pub first: Position,
    /// The last of them.
    pub last: Position,
    /// The file in which they should be.
    pub file: FileName,
    /// The byte at which reading that file failed; 0 if the file is missing.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
}

impl MissingRange {
    /// How many positions they are.
    #[must_use]
    pub fn positions(&self) -> u64 {
        self.last.get() - self.first.get() + 1
    }
}

/// What a salvage finds, in the order of positions.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Salvaged {
    /// A sound event, or the sound place of an erased one.
    Entry(LogEntry),
    /// Positions without one.
    Missing(MissingRange),
}

/// What a salvage came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Sound events.
    pub events: u64,
    /// Sound places of erased events.
    pub erased: u64,
    /// Positions that are missing.
    pub missing: u64,
    /// Bytes at the end of the log without a sound event: what is left of an append that was never acknowledged, or damage.
    pub torn_bytes: u64,
    /// Bytes that the disk did not return, in blocks of 4 KiB. They count as damaged.
    pub unreadable_bytes: u64,
}

/// Reads every sound event of the log on this disk.
///
/// # Errors
/// [`OpenError`]: the log is in use, of a newer format, or the process may open no more files; damage, or a file that cannot
/// be opened, only if no segment is there, or no file tells which log it is. [`OpenError::NoLog`]: the directory holds no file
/// of a log. An error of `each` ends the salvage.
/// # Cost
/// Reads every segment once; where one is damaged, looks for the next sound frame byte by byte.
pub fn salvage<E: From<OpenError>>(
    disk: &Arc<dyn Disk>,
    each: &mut dyn FnMut(Salvaged) -> Result<(), E>,
) -> Result<SalvageReport, E> {
    let _lock = disk.lock().map_err(OpenError::from)?;
    let inventory = Inventory::of(disk.as_ref())?;
    if inventory.is_empty() {
        return Err(OpenError::NoLog.into());
    }
    let handles = Arc::new(FileCache::over(Arc::clone(disk), CACHE_BYTES));
    let log = log_id(&handles, &inventory)?;
    // A marker that cannot be read says nothing.
    let marker = Marker::read_if(inventory.marker, &handles, log).unwrap_or_default();
    let mut salvage = Salvage {
        handles: &handles,
        seal: Checksum::of(log),
        next: Position::FIRST,
        unopened: None,
        report: SalvageReport::default(),
        each,
    };
    let mut segments = inventory.segments.iter().peekable();
    while let Some((&first, &generation)) = segments.next() {
        let name = FileName::of(FileKind::Segment { first, generation });
        if first > salvage.next {
            let found = inventory.segments.get(&salvage.next);
            let missing = FileName::of(FileKind::Segment {
                first: salvage.next,
                generation: found.copied().unwrap_or_default(),
            });
            salvage.missing(first, missing, 0, "the segment is missing or ends early")?;
        }
        // One that was not opened held nothing if this one follows what was read.
        salvage.unopened = None;
        let before = segments.peek().map_or(Position::MAX, |(first, _)| **first);
        salvage.segment(&name, first, before)?;
    }
    if let Some(marker) = marker
        && marker.next > salvage.next
    {
        let (first, generation) = (marker.first, marker.generation);
        let newest = FileName::of(FileKind::Segment { first, generation });
        let reason = "the log ended later when it was stopped";
        salvage.missing(marker.next, newest, marker.end, reason)?;
    }
    let newest = newest_header(&handles, &inventory, log);
    // A derived file that cannot be read says nothing either.
    let lost = inventory.successor(&handles, &newest, salvage.next);
    if let Some(lost) = lost.unwrap_or_default() {
        let mut reason = format!(
            "the segment is missing, although {} tells of it",
            lost.shown_by
        );
        let mut end = lost.last.next();
        if !lost.had_events() {
            reason.push_str("; nothing tells how many positions it holds");
            end = salvage.next.next();
        }
        salvage.missing(end, lost.name(), 0, &reason)?;
    }
    if let Some((newest, reason)) = salvage.unopened.take() {
        let reason = format!("{reason}; nothing tells how many positions it holds");
        salvage.missing(salvage.next.next(), newest, 0, &reason)?;
    }
    Ok(salvage.report)
}

/// Which log it is, as the first sound header or the clean-stop marker says. A segment of a newer format is an error: what its
/// frames mean is not known.
fn log_id(handles: &FileCache, inventory: &Inventory) -> Result<LogId, OpenError> {
    let (mut found, mut damage) = (None, None);
    for (&first, &generation) in &inventory.segments {
        match read_header(handles, first, generation) {
            Ok(header) => {
                found.get_or_insert(header.log);
            }
            Err(OpenError::Storage(error))
                if error.is_corruption() || error.is_unreadable_file() =>
            {
                damage.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(log) = found {
        return Ok(log);
    }
    let marked = Marker::log_id(inventory.marker, handles);
    let segment = FileName::of(FileKind::Segment {
        first: Position::FIRST,
        generation: 0,
    });
    let missing = || StorageError::corrupt(&segment, 0, "the log's segments are missing");
    match (marked, damage) {
        (Ok(Some(log)), _) => Ok(log),
        (_, damage) => Err(damage.unwrap_or_else(missing).into()),
    }
}

/// The header of the newest segment; where it is damaged, what its name tells.
fn newest_header(handles: &FileCache, inventory: &Inventory, log: LogId) -> SegmentHeader {
    let newest = inventory.segments.last_key_value();
    let (&first, &generation) = newest.unwrap_or((&Position::FIRST, &0));
    read_header(handles, first, generation).unwrap_or(SegmentHeader {
        log,
        generation,
        first,
        erased: Erased::default(),
    })
}

/// Bytes that are read at once where a larger read failed: the unit in which disks fail.
const BLOCK_BYTES: usize = 4_096;

/// A file of which every readable block is read; others read as zeros, which no checksum fits.
#[derive(Debug)]
struct ReadableBlocks {
    file: Arc<dyn DiskFile>,
    unreadable_bytes: AtomicU64,
    /// Offset behind the last block that was counted: a scan goes forwards, and reads some blocks twice.
    counted_to: AtomicU64,
}

impl DiskFile for ReadableBlocks {
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        if self.file.read_exact_at(buf, at).is_ok() {
            return Ok(());
        }
        let mut at = at;
        let mut rest = buf;
        while !rest.is_empty() {
            let within = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or(0);
            let count = rest.len().min(BLOCK_BYTES - within);
            let (block, behind) = rest.split_at_mut(count);
            if self.file.read_exact_at(block, at).is_err() {
                block.fill(0);
                let end = at + count as u64;
                let counted = self.counted_to.fetch_max(end, Ordering::Relaxed);
                let new = end.saturating_sub(counted.max(at));
                self.unreadable_bytes.fetch_add(new, Ordering::Relaxed);
            }
            at += count as u64;
            rest = behind;
        }
        Ok(())
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What lies behind the greatest length of a segment is none of its frames.
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.size()?.min(SEGMENT_BYTES_MAX))
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn reserve(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

struct Salvage<'a, E> {
    handles: &'a FileCache,
    seal: Checksum,
    /// The next position to give out.
    next: Position,
    /// The segment before the next position, if the system did not open it, and what it said.
    unopened: Option<(FileName, String)>,
    report: SalvageReport,
    each: &'a mut dyn FnMut(Salvaged) -> Result<(), E>,
}

impl<E: From<OpenError>> Salvage<'_, E> {
    /// Reports the positions from the next one to before `end` as missing: for this reason, or because a segment was not
    /// opened.
    fn missing(
        &mut self,
        end: Position,
        file: FileName,
        offset: u64,
        reason: &str,
    ) -> Result<(), E> {
        let unopened = self.unopened.take();
        let (file, reason, offset) = match unopened {
            Some((unopened, reason)) => (unopened, reason, 0),
            None => (file, reason.to_owned(), offset),
        };
        let range = MissingRange {
            first: self.next,
            last: end.previous(),
            file,
            offset,
            reason,
        };
        self.report.missing += range.positions();
        self.next = end;
        (self.each)(Salvaged::Missing(range))
    }

    /// Gives out what a segment holds of the positions from `first` to before `before`, where the next one begins: a file may be
    /// a copy of another segment.
    fn segment(&mut self, name: &FileName, first: Position, before: Position) -> Result<(), E> {
        let storage = |error: StorageError| E::from(OpenError::from(error));
        let file = match self.handles.get(name) {
            Err(error) if error.is_unreadable_file() => {
                self.unopened = Some((*name, ErrorChain(&error).to_string()));
                return Ok(());
            }
            opened => opened.map_err(storage)?,
        };
        let file = ReadableBlocks {
            file,
            unreadable_bytes: AtomicU64::new(0),
            counted_to: AtomicU64::new(0),
        };
        let mut scan = Scan::of(&file, *name, self.seal, first).map_err(storage)?;
        let mut names = NameResolver::default();
        let mut end = scan.offset();
        loop {
            let hole = scan.offset();
            let Some((offset, header, body)) = scan.next_sound_header().map_err(storage)? else {
                break;
            };
            end = scan.offset();
            if header.first < self.next || header.end() > before {
                continue;
            }
            if header.first > self.next {
                let reason = "no sound frame holds these positions";
                self.missing(header.first, *name, hole, reason)?;
            }
            self.frame(name, offset, &header, body, &mut names)?;
        }
        let data_end = scan.end_of_data(end).map_err(storage)?;
        self.report.torn_bytes = data_end.saturating_sub(end);
        self.report.unreadable_bytes += file.unreadable_bytes.into_inner();
        Ok(())
    }

    fn frame(
        &mut self,
        name: &FileName,
        offset: u64,
        header: &FrameHeader,
        body: Bytes,
        names: &mut NameResolver,
    ) -> Result<(), E> {
        let whole = body.len();
        let (mut body, mut position) = (Some(body), header.first);
        let mut damaged: Option<(u64, &'static str)> = None;
        while position < header.end() {
            let at = offset + (frame_offset(whole, body.as_ref())) as u64;
            let found = match body.as_mut() {
                Some(rest) => take(rest, self.seal, position, names),
                None => Err("a record before it hides where it begins"),
            };
            match found {
                Ok(entry) => {
                    if let Some((at, reason)) = damaged.take() {
                        self.missing(position, *name, at, reason)?;
                    }
                    self.give(entry)?;
                }
                Err(reason) => {
                    damaged.get_or_insert((at, reason));
                    body = body.and_then(skip);
                }
            }
            position = position.next();
        }
        match damaged {
            Some((at, reason)) => self.missing(header.end(), *name, at, reason),
            None => Ok(()),
        }
    }

    fn give(&mut self, entry: LogEntry) -> Result<(), E> {
        match entry.is_erased {
            true => self.report.erased += 1,
            false => self.report.events += 1,
        }
        self.next = entry.event.position.next();
        (self.each)(Salvaged::Entry(entry))
    }
}

/// Where in a frame the rest of its body begins.
fn frame_offset(whole: usize, rest: Option<&Bytes>) -> usize {
    crate::record::frame::HEADER_BYTES + whole - rest.map_or(0, Bytes::len)
}

/// Splits the record at the front off if it is sound; else leaves it there.
fn take(
    body: &mut Bytes,
    seal: Checksum,
    position: Position,
    names: &mut NameResolver,
) -> Result<LogEntry, &'static str> {
    let mut rest = body.clone();
    let record = event::take_record(&mut rest, seal, position).map_err(|m| m.what)?;
    let parsed = event::parse(&record).map_err(|m| m.what)?;
    let resolved = names.resolve(position, &parsed.naming);
    let resolved = resolved.map_err(|_| "its names stand in a record that is damaged")?;
    let entry = LogEntry {
        is_erased: parsed.is_erased,
        event: event::decode(&record, &parsed, position, resolved),
    };
    *body = rest;
    Ok(entry)
}

/// What follows the record at the front, as far as its length can be believed.
fn skip(mut body: Bytes) -> Option<Bytes> {
    let size = event::size(&body).ok().filter(|&size| size <= body.len())?;
    let _ = body.split_to(size);
    Some(body)
}
