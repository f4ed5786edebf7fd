//! Reading the events at given positions, with as few and as parallel reads as possible.
//!
//! **Owns:** [`Segments::fetch`] and [`Fetched`], the events as they lie in memory. **Does not know:** why these events.
//! **Invariants:** events come in the order of the positions; no byte is believed before its record's checksum matched;
//! memory is bounded by the caller's bound and one event.
//!
//! Events that lie side by side are read in one go. What the system has in memory is read at once; of the rest, all is
//! announced to the system before the first is waited for, so the disk works on all of it at the same time.

use std::{collections::HashMap, io, sync::Arc};

use bytes::Bytes;
use foldhash::fast::RandomState;
use leftfold_model::{Position, RecordedEvent};

use super::{LocationReader, Segment, Segments};
use crate::{
    disk::{DiskFile, FileName},
    error::StorageError,
    nowait,
    record::{
        Checksum, Malformed,
        event::{self, EventRef},
        malformed,
        names::{NameRef, Names, OwnedNames},
    },
};

/// Bytes of one read when events lie side by side. Larger: fewer calls, more memory per reader.
const READ_BYTES_MAX: u64 = 1024 * 1024;
/// Events this far apart are still read in one go: a page costs less than a call.
const READ_GAP_BYTES_MAX: u64 = 4 * 1024;

/// How many reads are asked whether they would have to wait.
const ASK_FIRST: usize = 4;

/// Steps of reading one run, and of checking and decoding one event.
const RUN_STEPS: usize = 16;
const EVENT_STEPS: usize = 4;
/// So many bytes of events are one step more.
const STEP_BYTES: usize = 512;

/// Events that were read.
#[derive(Debug)]
pub(crate) struct Fetched {
    bytes: Bytes,
    seal: Checksum,
    runs: Vec<Run>,
    /// Position of each event, and where in its segment it lies.
    places: Vec<(Position, u64)>,
    /// Events that these refer to for their names, and that are not among them.
    named: Option<Box<Fetched>>,
    /// Which of the places, counted from 0, say that their events are erased.
    erased: Vec<usize>,
    /// How many of the places are shown, and whether erased events are among what is shown.
    shown: usize,
    shows_erased: bool,
    /// Whether these are not all that were asked for.
    pub(crate) truncated: bool,
}

/// Events that lie close together in one segment.
#[derive(Debug)]
struct Run {
    file: Arc<dyn DiskFile>,
    name: FileName,
    from: u64,
    to: u64,
    /// Where its bytes lie in memory.
    within: usize,
    /// How many events it and those before it have.
    places_end: usize,
}

impl Run {
    fn bytes(&self) -> u64 {
        self.to - self.from
    }

    fn failed(&self, error: io::Error) -> StorageError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                StorageError::corrupt(&self.name, self.from, "the file is cut short")
            }
            _ => StorageError::io("read", &self.name, error),
        }
    }
}

impl Segments {
    /// Reads the events at these positions, which must all rise or all fall, or so many of them that they have about
    /// `bytes_max` bytes; erased ones are among them. `buffer` is memory to use, whatever it holds.
    pub(crate) fn fetch(
        &self,
        positions: &[Position],
        bytes_max: u64,
        buffer: Vec<u8>,
    ) -> Result<Fetched, StorageError> {
        self.handles.count_read();
        let mut fetched = self.locate(positions, bytes_max)?;
        fetched.truncated = fetched.places.len() < positions.len();
        fetched.read(buffer)?;
        let missing = fetched.look();
        if !missing.is_empty() {
            let mut named = self.locate(&missing, u64::MAX)?;
            named.read(Vec::new())?;
            fetched.named = Some(Box::new(named));
        }
        Ok(fetched)
    }

    /// Reads one event, also if it is erased: then it has no data.
    pub(crate) fn event(&self, position: Position) -> Result<Option<RecordedEvent>, StorageError> {
        let fetched = self.fetch(&[position], u64::MAX, Vec::new())?;
        Ok(fetched.into_events()?.pop())
    }

    /// Finds out where the events lie, and which can be read in one go.
    fn locate(&self, positions: &[Position], bytes_max: u64) -> Result<Fetched, StorageError> {
        let mut fetched = Fetched {
            bytes: Bytes::new(),
            seal: self.seal,
            runs: Vec::new(),
            places: Vec::with_capacity(positions.len()),
            named: None,
            erased: Vec::new(),
            shown: usize::MAX,
            shows_erased: true,
            truncated: false,
        };
        let mut bytes = 0;
        let mut rest = positions;
        while let Some(&position) = rest.first()
            && bytes < bytes_max
        {
            let Some((segment, range)) = self.segment_of(position) else {
                break;
            };
            let count = rest.iter().take_while(|p| range.contains(p)).count();
            let (here, behind) = rest.split_at(count);
            bytes += loop {
                let current = segment.current();
                match self.locate_in(current, here, bytes_max - bytes, &mut fetched) {
                    // Its files went while they were looked for: there are newer ones.
                    Err(_) if !std::ptr::eq(current, segment.current()) => {}
                    located => break located?,
                }
            };
            rest = behind;
        }
        Ok(fetched)
    }

    /// Finds out where events of one segment lie, until they have `bytes_max` bytes. Gives their bytes. An error leaves
    /// `fetched` as it was.
    fn locate_in(
        &self,
        segment: &Segment,
        positions: &[Position],
        bytes_max: u64,
        fetched: &mut Fetched,
    ) -> Result<u64, StorageError> {
        let mut locations = segment.location_reader(&self.handles);
        locations.prepare(positions)?;
        let (name, file) = (segment.name(), segment.file(&self.handles)?);
        let new_run = |start, end| Run {
            file: Arc::clone(&file),
            name,
            from: start,
            to: end,
            within: 0,
            places_end: 0,
        };
        fetched.add(positions, &mut locations, &new_run, bytes_max)
    }
}

impl Fetched {
    /// Adds events of one segment, until they have `bytes_max` bytes. Gives their bytes.
    fn add(
        &mut self,
        positions: &[Position],
        locations: &mut LocationReader<'_>,
        new_run: &dyn Fn(u64, u64) -> Run,
        bytes_max: u64,
    ) -> Result<u64, StorageError> {
        let (mut bytes, mut is_first) = (0, true);
        let mut places = Vec::with_capacity(positions.len());
        locations.of(positions, &mut places)?;
        for (&position, (start, end)) in positions.iter().zip(places) {
            if bytes >= bytes_max {
                break;
            }
            match self.runs.last_mut() {
                Some(run) if !is_first && joins(run, start, end) => {
                    run.from = run.from.min(start);
                    run.to = run.to.max(end);
                }
                _ => self.runs.push(new_run(start, end)),
            }
            is_first = false;
            self.places.push((position, start));
            if let Some(run) = self.runs.last_mut() {
                run.places_end = self.places.len();
            }
            bytes += end - start;
        }
        Ok(bytes)
    }

    /// Reads all runs, into `buffer`.
    fn read(&mut self, mut buffer: Vec<u8>) -> Result<(), StorageError> {
        let mut within = 0;
        for run in &mut self.runs {
            run.within = within;
            within += usize::try_from(run.bytes()).unwrap_or(usize::MAX);
        }
        let steps =
            self.runs.len() * RUN_STEPS + self.places.len() * EVENT_STEPS + within / STEP_BYTES;
        nowait::charge(u32::try_from(steps).unwrap_or(u32::MAX))?;
        buffer.resize(within, 0);
        if nowait::is_on() {
            self.read_in_memory(&mut buffer)?;
            self.bytes = buffer.into();
            return Ok(());
        }
        let mut missing: Vec<(&Run, &mut [u8])> = Vec::new();
        let mut rest = buffer.as_mut_slice();
        let mut ask = self.runs.len() > 1;
        for (nth, run) in self.runs.iter().enumerate() {
            let length = usize::try_from(run.bytes()).unwrap_or(usize::MAX);
            let (here, behind) = rest.split_at_mut(length);
            rest = behind;
            // Asking costs more than reading. Where the first few are in memory, the others are expected to be.
            ask = ask && (nth < ASK_FIRST || !missing.is_empty());
            if !ask && self.runs.len() > 1 {
                let read = run.file.read_exact_at(here, run.from);
                read.map_err(|e| run.failed(e))?;
                continue;
            }
            let cached = ask
                && run
                    .file
                    .read_if_cached(here, run.from)
                    .map_err(|e| run.failed(e))?;
            if !cached {
                missing.push((run, here));
            }
        }
        if missing.len() > 1 {
            for (run, _) in &missing {
                run.file.will_read(run.from, run.bytes());
            }
        }
        for (run, here) in missing {
            let read = run.file.read_exact_at(here, run.from);
            read.map_err(|e| run.failed(e))?;
        }
        self.bytes = buffer.into();
        Ok(())
    }

    /// Reads all runs without waiting. If one is not in memory, all that follow it are announced to the system: someone who
    /// waits will ask for them next.
    fn read_in_memory(&self, mut rest: &mut [u8]) -> Result<(), StorageError> {
        for (nth, run) in self.runs.iter().enumerate() {
            let length = usize::try_from(run.bytes()).unwrap_or(usize::MAX);
            let (here, behind) = rest.split_at_mut(length);
            rest = behind;
            if let Err(error) = nowait::read_exact_at(&*run.file, here, run.from) {
                for run in self.runs.iter().skip(nth) {
                    run.file.will_read(run.from, run.bytes());
                }
                return Err(run.failed(error));
            }
        }
        Ok(())
    }

    /// How many events are shown.
    pub(crate) fn len(&self) -> usize {
        let shown = self.places.len().min(self.shown);
        if self.shows_erased {
            shown
        } else {
            shown - self.erased.partition_point(|&nth| nth < shown)
        }
    }

    /// Shows no erased events from now on, and of the others `most` at most.
    pub(crate) fn skip_erased(&mut self, most: u64) -> Result<(), StorageError> {
        // What is not delivered must not rest on bytes that nobody checked.
        let mut erased = self.erased.iter().copied().peekable();
        for (nth, (run, position, start, within)) in self.each().enumerate() {
            if erased.peek().is_none() {
                break;
            }
            if erased.next_if_eq(&nth).is_some() {
                let bytes = self.bytes.get(within..).unwrap_or_default();
                let checked = event::check(bytes, self.seal, position).and_then(event::parse);
                checked.map_err(|malformed| damaged(run, start, &malformed))?;
            }
        }
        self.shows_erased = false;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if self.len() > most {
            let live = (0..self.places.len()).filter(|nth| self.erased.binary_search(nth).is_err());
            self.shown = live.take(most).last().map_or(0, |nth| nth + 1);
        }
        Ok(())
    }

    /// The position of the last event, shown or not.
    pub(crate) fn last(&self) -> Option<Position> {
        self.places.last().map(|&(position, _)| position)
    }

    /// Where the bytes of each event lie: run, position, offset in the segment, offset in memory.
    fn each(&self) -> impl Iterator<Item = (&Run, Position, u64, usize)> {
        let mut runs = self.runs.iter();
        let mut run = runs.next();
        self.places
            .iter()
            .enumerate()
            .map_while(move |(nth, &(position, start))| {
                while run.is_some_and(|run| run.places_end <= nth) {
                    run = runs.next();
                }
                let run = run?;
                let within = usize::try_from(start - run.from).unwrap_or(usize::MAX);
                Some((run, position, start, run.within.saturating_add(within)))
            })
    }

    /// Those of [`Self::each`] that are shown.
    fn each_shown(&self) -> impl Iterator<Item = (&Run, Position, u64, usize)> {
        let hides = |nth: &usize| !self.shows_erased && self.erased.binary_search(nth).is_ok();
        let all = self.each().enumerate().take(self.shown);
        all.filter(move |(nth, _)| !hides(nth))
            .map(|(_, place)| place)
    }

    /// Takes note of the erased events, and gives the positions, rising, of events that hold names of these and are not
    /// among them.
    fn look(&mut self) -> Vec<Position> {
        let (mut missing, mut erased) = (Vec::new(), Vec::new());
        for (nth, (_, position, _, within)) in self.each().enumerate() {
            let bytes = self.bytes.get(within..).unwrap_or_default();
            let peeked = event::peek(bytes);
            if peeked.is_erased {
                erased.push(nth);
            }
            if let Some(events) = peeked.back {
                let at = position.get().saturating_sub(events);
                if at > 0 && self.index_of(Position::new(at)).is_none() {
                    missing.push(Position::new(at));
                }
            }
        }
        self.erased = erased;
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// The place of the event at this position, if it is here.
    fn index_of(&self, position: Position) -> Option<usize> {
        let falls = matches!(&*self.places, [(a, _), .., (b, _)] if a > b);
        let order = |(at, _): &(Position, u64)| {
            if falls {
                position.cmp(at)
            } else {
                at.cmp(&position)
            }
        };
        self.places.binary_search_by(order).ok()
    }

    /// The names of an event that holds them itself.
    fn names_at(&self, position: Position) -> Result<Names<'_>, Malformed> {
        let nowhere = malformed("a reference leads to no names");
        let Some(index) = self.index_of(position) else {
            let named = self.named.as_ref().ok_or(nowhere)?;
            return match named.index_of(position) {
                Some(_) => named.names_at(position),
                None => Err(malformed("a reference leads to no names")),
            };
        };
        let run = self.runs.partition_point(|run| run.places_end <= index);
        let (Some(run), Some(&(_, start))) = (self.runs.get(run), self.places.get(index)) else {
            return Err(nowhere);
        };
        let within = run.within + usize::try_from(start - run.from).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(within..).unwrap_or_default();
        match event::parse(event::check(bytes, self.seal, position)?)?.naming {
            NameRef::Inline(names) => Ok(names),
            NameRef::Back(_) => Err(nowhere),
        }
    }

    /// The names of a record, wherever they are.
    fn names_of<'a>(
        &'a self,
        position: Position,
        naming: &NameRef<Names<'a>>,
    ) -> Result<Names<'a>, Malformed> {
        match naming {
            NameRef::Inline(names) => Ok(names.clone()),
            NameRef::Back(events) => {
                self.names_at(Position::new(position.get().saturating_sub(*events)))
            }
        }
    }

    /// The events that are shown, borrowed, each checked when it is reached.
    pub(crate) fn refs(&self) -> impl Iterator<Item = Result<EventRef<'_>, StorageError>> {
        self.each_shown().map(|(run, position, start, within)| {
            let bytes = self.bytes.get(within..).unwrap_or_default();
            let event = event::check(bytes, self.seal, position)
                .and_then(event::parse)
                .and_then(|record| {
                    let names = self.names_of(position, &record.naming)?;
                    Ok(record.with(position, names))
                });
            event.map_err(|malformed| damaged(run, start, &malformed))
        })
    }

    /// The memory it used.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes.into()
    }

    /// The events that are shown; their data and metadata share the memory.
    pub(crate) fn into_events(self) -> Result<Vec<RecordedEvent>, StorageError> {
        let mut owned = HashMap::default();
        let mut events = Vec::with_capacity(self.len());
        for (run, position, start, within) in self.each_shown() {
            let event = self.event(position, within, &mut owned);
            events.push(event.map_err(|malformed| damaged(run, start, &malformed))?);
        }
        Ok(events)
    }

    /// The event that lies here. `owned` holds names that several events may share.
    fn event(
        &self,
        position: Position,
        within: usize,
        owned: &mut HashMap<Position, OwnedNames, RandomState>,
    ) -> Result<RecordedEvent, Malformed> {
        let mut bytes = self.bytes.slice(within.min(self.bytes.len())..);
        let record = event::take_record(&mut bytes, self.seal, position)?;
        let parsed = event::parse(&record)?;
        let names = match parsed.naming {
            NameRef::Inline(ref names) => names.owned()?,
            NameRef::Back(events) => {
                let at = Position::new(position.get().saturating_sub(events));
                match owned.get(&at) {
                    Some(names) => names.clone(),
                    None => {
                        let names = self.names_at(at)?.owned()?;
                        owned.entry(at).or_insert(names).clone()
                    }
                }
            }
        };
        Ok(event::decode(&record, &parsed, position, names))
    }
}

fn damaged(run: &Run, offset: u64, malformed: &Malformed) -> StorageError {
    StorageError::corrupt(&run.name, offset, malformed.what)
}

/// Whether an event lies so close to a run that both are read in one go.
fn joins(run: &Run, start: u64, end: u64) -> bool {
    let gap = if start >= run.to {
        start - run.to
    } else {
        run.from.saturating_sub(end)
    };
    let span = run.to.max(end) - run.from.min(start);
    gap <= READ_GAP_BYTES_MAX && span <= READ_BYTES_MAX
}
