//! One-use tickets: credentials for clients that cannot set a header, as a browser's `EventSource`.
//!
//! **Owns:** [`Tickets`]: issuing and redeeming. **Does not know:** which requests take a ticket.
//! **Invariants:** a ticket is redeemed once, within its lifetime, and gives the principal that it was issued to; it is kept as
//! its SHA-256; the number of tickets of one lifetime is bounded, in all and for each principal.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest;
use tokio::time::Instant;

use super::{password::random_bytes, principal::Principal};

/// What every ticket begins with, so that scanners for secrets find it.
const PREFIX: &str = "lft_";
/// How long a ticket may be redeemed.
const LIFETIME: Duration = Duration::from_secs(30);
/// Tickets that are issued in one lifetime, at most: in all, and to one principal.
const TICKETS_MAX: usize = 16 * 1024;
const TICKETS_OF_PRINCIPAL_MAX: usize = 1024;

type Digest = [u8; 32];

/// A ticket that was just issued. Its text is not kept.
pub(crate) struct IssuedTicket {
    pub(crate) text: String,
    pub(crate) lifetime: Duration,
}

/// Why no ticket was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TicketError {
    #[error("too many tickets issued within {} s; retry later", LIFETIME.as_secs())]
    TooMany,
    #[error("the system gave no random bytes for a ticket")]
    Random,
}

/// The tickets of one lifetime.
#[derive(Default)]
struct Issued {
    /// Those that were not redeemed.
    principals: HashMap<Digest, Principal>,
    /// All of them by their end, the redeemed ones as well, so that these count in the bounds.
    ends: VecDeque<(Instant, Digest, String)>,
    counts: HashMap<String, usize>,
}

/// The tickets of a server.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<Issued>);

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl Tickets {
    /// Issues a ticket for a principal.
    pub(crate) fn issue(&self, principal: Principal) -> Result<IssuedTicket, TicketError> {
        let secret = random_bytes::<32>().map_err(|_| TicketError::Random)?;
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
        let (now, owner) = (Instant::now(), principal.to_string());
        let mut issued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        issued.forget_ended(now);
        let of_owner = issued.counts.get(&owner).copied().unwrap_or_default();
        if issued.ends.len() >= TICKETS_MAX || of_owner >= TICKETS_OF_PRINCIPAL_MAX {
            return Err(TicketError::TooMany);
        }
        let digest = digest(&text);
        issued.counts.insert(owner.clone(), of_owner + 1);
        issued.ends.push_back((now + LIFETIME, digest, owner));
        issued.principals.insert(digest, principal);
        Ok(IssuedTicket {
            text,
            lifetime: LIFETIME,
        })
    }

    /// Returns whom a ticket was issued to, the first time and within its lifetime.
    pub(crate) fn redeem(&self, text: &str) -> Option<Principal> {
        let mut issued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        issued.forget_ended(Instant::now());
        issued.principals.remove(&digest(text))
    }
}

impl Issued {
    fn forget_ended(&mut self, now: Instant) {
        while let Some((_, digest, owner)) = self.ends.pop_front_if(|(end, _, _)| *end <= now) {
            self.principals.remove(&digest);
            if let Some(count) = self.counts.get_mut(&owner) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&owner);
                }
            }
        }
    }
}

fn digest(text: &str) -> Digest {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Principal {
        Principal::Key {
            id: id.into(),
            name: id.into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_redeemed_once_and_within_its_lifetime() {
        let tickets = Tickets::default();
        let first = tickets.issue(key("a")).unwrap();
        assert!(first.text.starts_with(PREFIX));
        assert_eq!(tickets.redeem("lft_"), None);
        assert_eq!(tickets.redeem(&first.text), Some(key("a")));
        assert_eq!(tickets.redeem(&first.text), None, "it is used up");
        let second = tickets.issue(key("b")).unwrap();
        tokio::time::advance(LIFETIME).await;
        assert_eq!(tickets.redeem(&second.text), None, "it has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_tickets_is_bounded_for_each_principal_and_in_all() {
        let tickets = Tickets::default();
        let refused = |id: &str| tickets.issue(key(id)).err() == Some(TicketError::TooMany);
        for _ in 0..TICKETS_OF_PRINCIPAL_MAX {
            let ticket = tickets.issue(key("a")).unwrap();
            assert!(tickets.redeem(&ticket.text).is_some());
        }
        assert!(refused("a"), "redeemed ones count as well");
        for owner in 1..TICKETS_MAX / TICKETS_OF_PRINCIPAL_MAX {
            for _ in 0..TICKETS_OF_PRINCIPAL_MAX {
                tickets.issue(key(&owner.to_string())).unwrap();
            }
        }
        assert!(refused("b"));
        tokio::time::advance(LIFETIME).await;
        assert!(!refused("a") && !refused("b"));
        let issued = tickets.0.lock().unwrap();
        assert_eq!((issued.ends.len(), issued.principals.len()), (2, 2));
        assert_eq!(issued.counts.len(), 2, "nothing of the ended ones is kept");
    }
}
