//! Locating events, and grouping those that are read together.
//!
//! **Owns:** turning positions into runs of bytes. **Does not know:** how the runs are read.
//! **Invariants:** a run lies in one segment; runs come in the order of the positions.

use std::sync::Arc;

use bytes::Bytes;
use leftfold_model::Position;

use super::{Fetched, Run};
use crate::{
    error::StorageError,
    segment::{LocationReader, Segment, Segments},
};

/// Bytes of one read when events lie side by side. Larger: fewer calls, more memory per reader.
const READ_BYTES_MAX: u64 = 1024 * 1024;
/// Events this far apart are still read in one go: a page costs less than a call.
const READ_GAP_BYTES_MAX: u64 = 4 * 1024;

/// Segments that one read spans: each has a file open meanwhile.
const SEGMENTS_MAX: usize = 32;

impl Segments {
    /// Looks up where the events lie, and which can be read in one go; of events in many segments, the first ones.
    pub(super) fn locate(
        &self,
        positions: &[Position],
        bytes_max: u64,
    ) -> Result<Fetched, StorageError> {
        let mut fetched = Fetched {
            bytes: Bytes::new(),
            seal: self.seal,
            runs: Vec::new(),
            places: Vec::with_capacity(positions.len()),
            named: Vec::new(),
            erased: Vec::new(),
            returned: usize::MAX,
            shows_erased: true,
            truncated: false,
        };
        let mut bytes = 0;
        let (mut rest, mut segments) = (positions, 0);
        while let Some(&position) = rest.first()
            && bytes < bytes_max
            && segments < SEGMENTS_MAX
        {
            segments += 1;
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

    /// Looks up where events of one segment lie, until they have `bytes_max` bytes. Gives their bytes. An error leaves
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
            file: Some(Arc::clone(&file)),
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
