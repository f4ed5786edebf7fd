//! Room for requests that come in several messages, until they are carried out.
//!
//! **Owns:** [`MemoryBudget`], the room all of them share, and [`Reservation`], what one of them takes of it.
//! **Does not know:** what is gathered.
//! **Invariants:** what is gathered by all calls together is bounded by the setting `in_flight_bytes_max`; whoever finds no
//! room is refused at once instead of waiting, since those who hold some may be waiting for their clients.

use std::{fmt, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Settings;

/// In which room is counted, so that it fits a semaphore and small requests ask once.
const UNIT: usize = 4 * 1024;

/// The room of one server.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget {
    room: Arc<Semaphore>,
}

/// There is no room at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BudgetExhausted;

impl fmt::Display for BudgetExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "requests that are being gathered take all of in_flight_bytes_max; nothing was written",
        )
    }
}

impl MemoryBudget {
    pub(crate) fn new(settings: &Settings) -> Self {
        let units = settings.in_flight_bytes_max.len() / UNIT;
        let room = Semaphore::new(units.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            room: Arc::new(room),
        }
    }

    /// A request that holds nothing yet.
    pub(crate) fn begin(&self) -> Reservation {
        Reservation {
            gathering: self.clone(),
            permit: None,
            free: 0,
        }
    }
}

/// What a request holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    gathering: MemoryBudget,
    permit: Option<OwnedSemaphorePermit>,
    /// Bytes that are held and not used.
    free: usize,
}

impl Reservation {
    /// Takes room for so many bytes more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        if bytes <= self.free {
            self.free -= bytes;
            return Ok(());
        }
        let units = (bytes - self.free).div_ceil(UNIT);
        let wanted = u32::try_from(units).map_err(|_| BudgetExhausted)?;
        let room = Arc::clone(&self.gathering.room);
        let more = room
            .try_acquire_many_owned(wanted)
            .map_err(|_| BudgetExhausted)?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        self.free = self.free + units * UNIT - bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_shared_and_comes_back() {
        let mut settings = Settings::default();
        settings.set("in_flight_bytes_max", "64KiB").unwrap();
        let gathering = MemoryBudget::new(&settings);
        let (mut one, mut other) = (gathering.begin(), gathering.begin());
        for _ in 0..40 {
            one.grow(1_000).unwrap();
        }
        assert_eq!(other.grow(30_000), Err(BudgetExhausted));
        other.grow(20_000).unwrap();
        drop(one);
        other.grow(40_000).unwrap();
        assert_eq!(other.grow(usize::MAX), Err(BudgetExhausted));
        drop(other);
        assert_eq!(gathering.room.available_permits(), 16);
    }
}
