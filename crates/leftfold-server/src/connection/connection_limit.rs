//! Limits on the number of connections, in all and from one address.
//!
//! **Owns:** [`ConnectionLimiter`], [`ConnectionPermit`]. **Does not know:** connections.
//! **Invariants:** each permit counts until it is dropped; an address without connections takes no memory.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::address_block;
use crate::Settings;

/// A limiter of open connections.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    connections_max: usize,
    per_address_max: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The permit of one connection, released when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    address: IpAddr,
    open: Arc<Mutex<Open>>,
}

impl ConnectionLimiter {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            connections_max: settings.connections_max,
            per_address_max: settings.connections_per_address_max,
            open: Arc::default(),
        }
    }

    /// Acquires a permit, or returns `None` if a limit is reached.
    pub(super) fn try_acquire(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let address = address_block(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let from_there = open.by_address.get(&address).copied().unwrap_or(0);
        if open.all >= self.connections_max || from_there >= self.per_address_max {
            return None;
        }
        open.all += 1;
        open.by_address.insert(address, from_there + 1);
        Some(ConnectionPermit {
            address,
            open: Arc::clone(&self.open),
        })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(from_there) = open.by_address.get_mut(&self.address) {
            *from_there -= 1;
            if *from_there == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(all: &str, per_address: &str) -> ConnectionLimiter {
        let mut settings = Settings::default();
        settings.set("connections_max", all).unwrap();
        settings
            .set("connections_per_address_max", per_address)
            .unwrap();
        ConnectionLimiter::new(&settings)
    }

    #[test]
    fn an_address_is_held_to_its_own_bound() {
        let limiter = limiter("10", "2");
        let (here, there) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = limiter.try_acquire(here).unwrap();
        let _second = limiter.try_acquire(here).unwrap();
        assert!(limiter.try_acquire(here).is_none());
        assert!(limiter.try_acquire(there).is_some());
        drop(first);
        assert!(limiter.try_acquire(here).is_some());
    }

    #[test]
    fn addresses_of_ipv6_count_by_their_network() {
        let limiter = limiter("10", "1");
        let of = |text: &str| limiter.try_acquire(text.parse().unwrap());
        let _one = of("2001:db8:1:2::1").unwrap();
        assert!(of("2001:db8:1:2:ffff::9").is_none(), "one network");
        let _other = of("2001:db8:1:3::1").unwrap();
        let _four = of("::ffff:192.0.2.1").unwrap();
        assert!(of("192.0.2.1").is_none(), "one address in two forms");
        assert!(of("192.0.2.2").is_some());
    }

    #[test]
    fn all_addresses_together_are_held_to_the_bound() {
        let limiter = limiter("2", "2");
        let permits: Vec<_> = (1..=3)
            .filter_map(|last| limiter.try_acquire([10, 0, 0, last].into()))
            .collect();
        assert_eq!(permits.len(), 2);
        drop(permits);
        assert!(limiter.open.lock().unwrap().by_address.is_empty());
    }
}
