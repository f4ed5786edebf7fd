//! Reading runs of bytes, with as few and as parallel reads as possible.
//!
//! **Owns:** the order of reads, prefetching, and reads that must not wait. **Does not know:** what the bytes hold.
//! **Invariants:** a run's bytes lie at its place in the buffer.
//!
//! Runs in the page cache are read at once. All others are announced to the system before the first of them is read, so the
//! disk works on them in parallel.

use super::{Fetched, Run};
use crate::{error::StorageError, nowait};

/// Number of reads whose pages are probed before the first blocking read.
const ASK_FIRST: usize = 4;

/// Steps of reading one run, and of checking and decoding one event.
const RUN_STEPS: usize = 16;
const EVENT_STEPS: usize = 4;
/// So many bytes of events are one step more.
const STEP_BYTES: usize = 512;

impl Fetched {
    /// Reads all runs, into `buffer`.
    pub(super) fn read(&mut self, buffer: Vec<u8>) -> Result<(), StorageError> {
        self.read_runs(buffer)?;
        self.runs.iter_mut().for_each(|run| run.file = None);
        Ok(())
    }

    fn read_runs(&mut self, mut buffer: Vec<u8>) -> Result<(), StorageError> {
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
                let read = run
                    .file()
                    .and_then(|file| file.read_exact_at(here, run.from));
                read.map_err(|e| run.failed(e))?;
                continue;
            }
            let cached = ask
                && run
                    .file()
                    .and_then(|file| file.read_if_cached(here, run.from))
                    .map_err(|e| run.failed(e))?;
            if !cached {
                missing.push((run, here));
            }
        }
        if missing.len() > 1 {
            for (run, _) in &missing {
                run.will_read();
            }
        }
        for (run, here) in missing {
            let read = run
                .file()
                .and_then(|file| file.read_exact_at(here, run.from));
            read.map_err(|e| run.failed(e))?;
        }
        self.bytes = buffer.into();
        Ok(())
    }

    /// Reads all runs without waiting. If one is not in memory, all that follow it are announced to the system: someone who
    /// waits will ask for them next.
    pub(super) fn read_in_memory(&self, mut rest: &mut [u8]) -> Result<(), StorageError> {
        for (nth, run) in self.runs.iter().enumerate() {
            let length = usize::try_from(run.bytes()).unwrap_or(usize::MAX);
            let (here, behind) = rest.split_at_mut(length);
            rest = behind;
            if let Err(error) = run
                .file()
                .and_then(|file| nowait::read_exact_at(file, here, run.from))
            {
                for run in self.runs.iter().skip(nth) {
                    run.will_read();
                }
                return Err(run.failed(error));
            }
        }
        Ok(())
    }
}
