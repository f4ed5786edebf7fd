//! The memory budget of requests, from their first byte until they are executed.
//!
//! **Owns:** [`MemoryBudget`], one per server; [`ConnectionMemory`], the share of one connection and of its address;
//! [`Reservation`], what one request holds. **Does not know:** what requests say.
//! **Invariants:**
//! - All requests together hold at most `in_flight_bytes_max`.
//! - One connection holds at most three quarters of it, one address seven eighths.
//! - The last eighth is for requests that hold little.
//! - A request that does not fit is rejected. It never waits for another request, so requests cannot deadlock on the budget.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::address_block;

/// Bytes are charged in units of this size, so that a small request is charged once.
const UNIT: usize = 4 * 1024;
/// Maximum that a request may hold in the part reserved for small requests.
const SMALL_BYTES_MAX: usize = 64 * 1024;

/// The memory of one server for requests.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    bytes_max: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The memory that the requests of one connection share.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionMemory {
    budget: MemoryBudget,
    /// `None` if there is no connection, as for work of the server itself.
    owner: Option<Arc<Owner>>,
}

#[derive(Debug)]
struct Owner {
    address: IpAddr,
    /// Changed only while `Budget::used` is locked.
    used: AtomicUsize,
}

/// The shares of one connection: for its requests, and for what its open calls keep.
#[derive(Debug, Clone)]
pub(crate) struct CallMemory {
    pub(crate) requests: ConnectionMemory,
    pub(crate) open_calls: ConnectionMemory,
}

/// A request does not fit into the free memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BudgetExhausted;

impl fmt::Display for BudgetExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "memory for requests exhausted (in_flight_bytes_max); nothing was written, try again later",
        )
    }
}

impl std::error::Error for BudgetExhausted {}

impl MemoryBudget {
    /// Creates a budget of this many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Budget {
            bytes_max,
            used: Mutex::default(),
        }))
    }

    /// Returns the share of a connection from this address.
    pub(crate) fn connection(&self, address: IpAddr) -> ConnectionMemory {
        ConnectionMemory {
            budget: self.clone(),
            owner: Some(Arc::new(Owner {
                address: address_block(address),
                used: AtomicUsize::new(0),
            })),
        }
    }

    /// Returns a share that only the whole budget bounds.
    pub(crate) fn without_connection(&self) -> ConnectionMemory {
        ConnectionMemory {
            budget: self.clone(),
            owner: None,
        }
    }

    /// Returns the bytes that requests hold now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        // Only sums are changed under the lock, so a panic leaves them whole.
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionMemory {
    /// Creates an empty reservation.
    pub(crate) fn begin(&self) -> Reservation {
        Reservation {
            memory: self.clone(),
            charged: 0,
            used: 0,
        }
    }

    fn charge(&self, bytes: usize, held: usize) -> Result<(), BudgetExhausted> {
        let bytes_max = self.budget.0.bytes_max;
        let fits = |used: usize, max: usize| used.checked_add(bytes).is_some_and(|sum| sum <= max);
        let mut used = self.budget.lock();
        let small = held.saturating_add(bytes) <= SMALL_BYTES_MAX;
        let all_max = if small {
            bytes_max
        } else {
            bytes_max - bytes_max / 8
        };
        if !fits(used.all, all_max) {
            return Err(BudgetExhausted);
        }
        if let Some(owner) = &self.owner {
            let by_address = used.by_address.get(&owner.address).copied().unwrap_or(0);
            let by_connection = owner.used.load(Ordering::Relaxed);
            // What is less than one small request is not worth a share.
            let share = |part: usize| part.max(SMALL_BYTES_MAX.min(bytes_max));
            if !fits(by_connection, share(bytes_max - bytes_max / 4))
                || !fits(by_address, share(bytes_max - bytes_max / 8))
            {
                return Err(BudgetExhausted);
            }
            used.by_address.insert(owner.address, by_address + bytes);
            owner.used.store(by_connection + bytes, Ordering::Relaxed);
        }
        used.all += bytes;
        Ok(())
    }

    fn release(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut used = self.budget.lock();
        used.all -= bytes;
        if let Some(owner) = &self.owner {
            owner.used.fetch_sub(bytes, Ordering::Relaxed);
            if let Some(by_address) = used.by_address.get_mut(&owner.address) {
                *by_address -= bytes;
                if *by_address == 0 {
                    used.by_address.remove(&owner.address);
                }
            }
        }
    }
}

/// The memory that a request holds, released when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    memory: ConnectionMemory,
    /// Bytes that the budget counts: whole units.
    charged: usize,
    /// Bytes of them that are in use.
    used: usize,
}

impl Reservation {
    /// Charges this many more bytes.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        let used = self.used.checked_add(bytes).ok_or(BudgetExhausted)?;
        if used > self.charged {
            let more = (used - self.charged)
                .checked_next_multiple_of(UNIT)
                .ok_or(BudgetExhausted)?;
            self.memory.charge(more, self.charged)?;
            self.charged += more;
        }
        self.used = used;
        Ok(())
    }

    /// Returns the bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Releases everything.
    pub(crate) fn clear(&mut self) {
        self.memory.release(self.charged);
        self.charged = 0;
        self.used = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn memory_is_shared_and_comes_back() {
        let budget = MemoryBudget::new(64 * KIB);
        let memory = budget.without_connection();
        let (mut one, mut other) = (memory.begin(), memory.begin());
        for _ in 0..40 {
            one.grow(1_000).unwrap();
        }
        assert_eq!(other.grow(30_000), Err(BudgetExhausted));
        other.grow(20_000).unwrap();
        drop(one);
        other.grow(40_000).unwrap();
        assert_eq!(other.grow(usize::MAX), Err(BudgetExhausted));
        drop(other);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn one_connection_takes_three_quarters_and_one_address_an_eighth_more() {
        let budget = MemoryBudget::new(1024 * KIB);
        let (one, two) = (budget.connection(address(1)), budget.connection(address(1)));
        let (mut first, mut second) = (one.begin(), two.begin());
        first.grow(768 * KIB).unwrap();
        assert_eq!(first.grow(1), Err(BudgetExhausted), "three quarters");
        second.grow(64 * KIB).unwrap();
        let mut third = two.begin();
        third.grow(64 * KIB).unwrap();
        assert_eq!(two.begin().grow(1), Err(BudgetExhausted), "seven eighths");
        let other = budget.connection(address(2));
        other.begin().grow(64 * KIB).unwrap();
        drop(third);
        drop((first, second));
        assert!(budget.lock().by_address.is_empty());
    }

    #[test]
    fn large_requests_leave_memory_for_small_ones() {
        let budget = MemoryBudget::new(1024 * KIB);
        let held: Vec<_> = (1..=7)
            .map(|last| {
                let mut large = budget.connection(address(last)).begin();
                large.grow(128 * KIB).unwrap();
                large
            })
            .collect();
        let newcomer = budget.connection(address(8));
        assert_eq!(newcomer.begin().grow(65 * KIB), Err(BudgetExhausted));
        newcomer.begin().grow(64 * KIB).unwrap();
        drop(held);
        assert_eq!(budget.used(), 0);
    }
}
