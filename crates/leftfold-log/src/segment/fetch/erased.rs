//! Leaving erased events out of fetched ones.
//!
//! **Owns:** which of the fetched events are returned. **Does not know:** why events were erased.
//! **Invariants:** the checksum of a hidden event is verified too.

use leftfold_model::Position;

use super::{Fetched, Run, damaged};
use crate::{error::StorageError, record::event};

impl Fetched {
    /// How many events are returned.
    pub(crate) fn len(&self) -> usize {
        let returned = self.places.len().min(self.returned);
        if self.shows_erased {
            returned
        } else {
            returned - self.erased.partition_point(|&nth| nth < returned)
        }
    }

    /// Which of the fetched events, counted from 0, are erased; ascending.
    pub(crate) fn erased(&self) -> &[usize] {
        &self.erased
    }

    /// Shows no erased events from now on, and of the others `most` at most.
    pub(crate) fn skip_erased(&mut self, most: u64) -> Result<(), StorageError> {
        // Skipping an event relies on its bytes, so their checksum is verified first.
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
            self.returned = live.take(most).last().map_or(0, |nth| nth + 1);
        }
        Ok(())
    }

    /// Those of [`Self::each`] that are returned.
    pub(super) fn each_returned(&self) -> impl Iterator<Item = (&Run, Position, u64, usize)> {
        let hides = |nth: &usize| !self.shows_erased && self.erased.binary_search(nth).is_ok();
        let all = self.each().enumerate().take(self.returned);
        all.filter(move |(nth, _)| !hides(nth))
            .map(|(_, place)| place)
    }
}
