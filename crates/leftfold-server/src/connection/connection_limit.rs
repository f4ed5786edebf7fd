//! How many connections there may be, in all and from one address.
//!
//! **Owns:** [`ConnectionLimiter`], [`ConnectionPermit`]. **Does not know:** connections.
//! **Invariants:** each pass is counted until it is dropped; an address without connections takes no memory.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::Settings;

/// Counts those inside.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    connections_max: usize,
    per_address_max: usize,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The right to be inside, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    address: IpAddr,
    inside: Arc<Mutex<Inside>>,
}

impl ConnectionLimiter {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            connections_max: settings.connections_max,
            per_address_max: settings.connections_per_address_max,
            inside: Arc::default(),
        }
    }

    /// Lets one more in, unless that were too many.
    pub(super) fn try_acquire(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let from_there = inside.by_address.get(&address).copied().unwrap_or(0);
        if inside.all >= self.connections_max || from_there >= self.per_address_max {
            return None;
        }
        inside.all += 1;
        inside.by_address.insert(address, from_there + 1);
        Some(ConnectionPermit {
            address,
            inside: Arc::clone(&self.inside),
        })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.all -= 1;
        if let Some(from_there) = inside.by_address.get_mut(&self.address) {
            *from_there -= 1;
            if *from_there == 0 {
                inside.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(all: &str, per_address: &str) -> ConnectionLimiter {
        let mut settings = Settings::default();
        settings.set("connections_max", all).unwrap();
        settings
            .set("connections_per_address_max", per_address)
            .unwrap();
        ConnectionLimiter::new(&settings)
    }

    #[test]
    fn an_address_is_held_to_its_own_bound() {
        let door = door("10", "2");
        let (here, there) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = door.try_acquire(here).unwrap();
        let _second = door.try_acquire(here).unwrap();
        assert!(door.try_acquire(here).is_none());
        assert!(door.try_acquire(there).is_some());
        drop(first);
        assert!(door.try_acquire(here).is_some());
    }

    #[test]
    fn all_addresses_together_are_held_to_the_bound() {
        let door = door("2", "2");
        let passes: Vec<_> = (1..=3)
            .filter_map(|last| door.try_acquire([10, 0, 0, last].into()))
            .collect();
        assert_eq!(passes.len(), 2);
        drop(passes);
        assert!(door.inside.lock().unwrap().by_address.is_empty());
    }
}
