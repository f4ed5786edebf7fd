//! Which consumer the events of a bucket go to.
//!
//! **Owns:** [`BucketOwners`] and what puts an event into a bucket. **Does not know:** buffers, acknowledgements.
//! **Invariants:** an event's bucket follows from the event alone; when a consumer comes or goes, only buckets that it gets
//! or had change their owner (rendezvous hashing, Thaler and Ravishankar 1998).

use leftfold_model::RecordedEvent;

use super::{
    message::{ConsumerKey, LinkTarget, Message},
    settings::ConsumerStrategy,
};
use crate::{json, link, system_index::CORRELATION};

/// How many buckets there are.
const BUCKETS: usize = 1_024;

/// The owners of all buckets.
#[derive(Debug)]
pub(super) struct BucketOwners(Vec<Option<ConsumerKey>>);

impl Default for BucketOwners {
    fn default() -> Self {
        Self(vec![None; BUCKETS])
    }
}

impl BucketOwners {
    /// Gives a consumer that came its share.
    pub(super) fn join(&mut self, consumer: ConsumerKey) {
        for (bucket, owner) in self.0.iter_mut().enumerate() {
            let wins = owner.is_none_or(|owner| weight(bucket, consumer) > weight(bucket, owner));
            if wins {
                *owner = Some(consumer);
            }
        }
    }

    /// Shares what a consumer had that left among those that stay.
    pub(super) fn leave(
        &mut self,
        consumer: ConsumerKey,
        staying: impl Iterator<Item = ConsumerKey> + Clone,
    ) {
        for (bucket, owner) in self.0.iter_mut().enumerate() {
            if *owner == Some(consumer) {
                *owner = staying.clone().max_by_key(|&other| weight(bucket, other));
            }
        }
    }

    /// The consumer to which the events of a bucket go.
    pub(super) fn owner(&self, bucket: usize) -> Option<ConsumerKey> {
        self.0.get(bucket % BUCKETS).copied().flatten()
    }
}

/// FNV-1a over a few bytes, mixed so that neighbours differ in all bits.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().copied().flatten() {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    state ^= state >> 33;
    state = state.wrapping_mul(0xff51_afd7_ed55_8ccd);
    state ^ (state >> 33)
}

fn weight(bucket: usize, consumer: ConsumerKey) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or_default();
    hash(&[&bucket.to_le_bytes(), &consumer.to_le_bytes()])
}

/// The bucket of a message under a strategy that pins.
pub(super) fn bucket(strategy: ConsumerStrategy, message: &Message) -> usize {
    let pinned_to = match strategy {
        ConsumerStrategy::PinnedByCorrelation => correlation(message),
        _ => None,
    };
    let pinned_to = pinned_to.unwrap_or_else(|| source_stream(message));
    let buckets = u64::try_from(BUCKETS).unwrap_or(u64::MAX);
    usize::try_from(hash(&[pinned_to.as_bytes()]) % buckets).unwrap_or_default()
}

/// The stream that an event was appended to, also if a link led to it.
fn source_stream(message: &Message) -> String {
    match &message.target {
        LinkTarget::Event(event) => event.stream.to_string(),
        LinkTarget::NoLink | LinkTarget::Missing => {
            linked_stream(&message.original).unwrap_or_else(|| message.original.stream.to_string())
        }
    }
}

fn linked_stream(event: &RecordedEvent) -> Option<String> {
    let (stream, _) = link::place(&event.data).filter(|_| link::is_link(event))?;
    Some(stream.to_string())
}

fn correlation(message: &Message) -> Option<String> {
    let event = match &message.target {
        LinkTarget::Event(event) => event,
        LinkTarget::NoLink | LinkTarget::Missing => &message.original,
    };
    json::text_member(&event.metadata, CORRELATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_shared_evenly_and_move_only_to_or_from_the_consumer_that_changed() {
        let mut owners = BucketOwners::default();
        for consumer in 1..=4 {
            owners.join(consumer);
        }
        let counts = (1..=4).map(|consumer| {
            let owned = owners.0.iter().filter(|owner| **owner == Some(consumer));
            owned.count()
        });
        for count in counts {
            assert!((180..=340).contains(&count), "{count} of 1024");
        }
        let before = owners.0.clone();
        owners.join(5);
        let moved = before.iter().zip(&owners.0).filter(|(old, new)| old != new);
        for (_, new) in moved {
            assert_eq!(*new, Some(5));
        }
        owners.leave(5, 1..=4);
        assert_eq!(owners.0, before);
        owners.leave(1, std::iter::empty());
        assert!(!owners.0.contains(&Some(1)));
    }
}
