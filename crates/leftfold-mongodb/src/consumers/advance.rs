//! Changes of what a consumer parked and of its timers.
//!
//! **Owns:** advancing, resolving, resetting: blocks first, then the document that refers to them.
//! **Does not know:** claims. **Invariants:** blocks are inserted before the document refers to them, and removed after it
//! does not; a change whose outcome is unknown is decided again on what the document says then.

use std::collections::BTreeMap;

use leftfold_model::Position;
use leftfold_store::consumers::{
    Claim, ConsumerChange, ConsumerError, ConsumerName, PARKED_MAX, Resolution,
};
use mongodb::bson::doc;

use super::{
    MongoConsumers, Outcome, Step,
    blocks::{BlockReference, Changes, Entry, Rewritten, rewrite, touched},
    document::{ConsumerDocument, ParkedEntry, TimerEntry, number},
    not_found,
};
use crate::{document::to_i64, error::Failure};

/// Blocks of one consumer, at most: their references have to fit its document.
const BLOCKS_MAX: usize = 50_000;

/// The changes of one advance.
#[derive(Clone, Default)]
struct AdvanceChanges {
    parked: Changes<ParkedEntry>,
    timers: Changes<TimerEntry>,
}

impl AdvanceChanges {
    /// Of two changes under one key the later one counts, which has the effect of both.
    fn new(changes: Vec<ConsumerChange>) -> Self {
        let mut all = Self::default();
        for change in changes {
            match change {
                ConsumerChange::Park(event) => {
                    let entry = ParkedEntry::new(event);
                    all.parked.insert(entry.position, Some(entry));
                }
                ConsumerChange::Unpark(position) => {
                    all.parked.insert(to_i64(position.get()), None);
                }
                ConsumerChange::SetTimer(timer) => {
                    let entry = TimerEntry::new(timer);
                    all.timers.insert(entry.id.clone(), Some(entry));
                }
                ConsumerChange::CancelTimer(id) => {
                    all.timers.insert(id, None);
                }
            }
        }
        all
    }

    fn is_empty(&self) -> bool {
        self.parked.is_empty() && self.timers.is_empty()
    }
}

impl MongoConsumers {
    pub(super) async fn advanced(
        &self,
        claim: &Claim,
        to: Position,
        changes: Vec<ConsumerChange>,
    ) -> Result<(), ConsumerError> {
        ConsumerChange::check_all(&changes)?;
        // Moving a checkpoint back is refused before an operation is sent.
        claim.check_advance(claim.position, to)?;
        let changes = AdvanceChanges::new(changes);
        self.repeat(|| self.try_advance(claim, to, &changes)).await
    }

    async fn try_advance(
        &self,
        claim: &Claim,
        to: Position,
        changes: &AdvanceChanges,
    ) -> Outcome<()> {
        if changes.is_empty() {
            // Most calls: one round trip, and nothing that is parked is touched.
            let filter = doc! {
                "_id": claim.consumer.as_str(),
                "term": to_i64(claim.term),
                "position": to_i64(claim.position.get()),
            };
            let fields = doc! { "position": to_i64(to.get()), "moved_at": self.micros_now() };
            let update = doc! { "$set": fields, "$inc": { "version": 1_i64 } };
            if self.update(filter, update).await? {
                return Ok(Step::Done(()));
            }
        }
        let Some(consumer) = self.find(&claim.consumer).await? else {
            return Ok(Step::Refused(ConsumerError::Lost {
                consumer: claim.consumer.clone(),
                term: claim.term,
                newest: 0,
            }));
        };
        let standing = consumer
            .check_term(claim)
            .and_then(|()| claim.check_advance(Position::new(number(consumer.position)), to));
        match standing {
            Ok(true) => {}
            Ok(false) => return Ok(Step::Done(())),
            Err(refused) => return Ok(Step::Refused(refused)),
        }
        let next = ConsumerDocument {
            position: to_i64(to.get()),
            moved_at: self.micros_now(),
            ..consumer.clone()
        };
        self.write(&consumer, next, changes.clone()).await
    }

    /// Makes changes to the blocks of `consumer`, and replaces it by `next` with the new references.
    async fn write(
        &self,
        consumer: &ConsumerDocument,
        mut next: ConsumerDocument,
        changes: AdvanceChanges,
    ) -> Outcome<()> {
        let name = &consumer.name;
        let parked = self
            .rewritten(name, &consumer.parked, changes.parked)
            .await?;
        let timers = self
            .rewritten(name, &consumer.timers, changes.timers)
            .await?;
        let (Some(parked), Some(timers)) = (parked, timers) else {
            return Ok(Step::Overtaken);
        };
        if let Err(refused) = check_limits(consumer, &parked, &timers) {
            return Ok(Step::Refused(refused));
        }
        next.version = consumer.version + 1;
        next.parked_count = parked.counts.1;
        next.timer_count = timers.counts.1;
        next.parked = parked.references;
        next.timers = timers.references;
        let added: Vec<String> = parked
            .added
            .iter()
            .map(|(id, _)| id)
            .chain(timers.added.iter().map(|(id, _)| id))
            .cloned()
            .collect();
        self.insert(consumer, parked.added).await?;
        self.insert(consumer, timers.added).await?;
        if !self.replace(&next).await? {
            self.discard(name, added.iter()).await;
            return Ok(Step::Overtaken);
        }
        let replaced = parked.removed.iter().chain(&timers.removed);
        self.discard(name, replaced).await;
        Ok(Step::Done(()))
    }

    /// The blocks after changes; `None` if one is gone, because the consumer has changed.
    async fn rewritten<E: Entry>(
        &self,
        consumer: &str,
        references: &[BlockReference<E::Key>],
        changes: Changes<E>,
    ) -> Result<Option<Rewritten<E>>, Failure> {
        let runs = touched(references, changes.keys());
        let mut loaded = Vec::with_capacity(runs.len());
        for run in &runs {
            let blocks = references.get(run.blocks.clone()).unwrap_or_default();
            match self.load::<E>(consumer, blocks).await? {
                Some(entries) => loaded.push(entries),
                None => return Ok(None),
            }
        }
        Ok(Some(rewrite(references, &runs, loaded, changes)))
    }

    pub(super) async fn try_resolve(
        &self,
        name: &ConsumerName,
        position: Position,
        resolution: Resolution,
    ) -> Outcome<()> {
        let Some(consumer) = self.find_known(name).await? else {
            return Ok(Step::Refused(not_found(name)));
        };
        let key = to_i64(position.get());
        let runs = touched(&consumer.parked, [key].iter());
        let blocks = runs.first().map(|run| run.blocks.clone());
        let blocks = blocks.and_then(|blocks| consumer.parked.get(blocks));
        let Some(entries) = self
            .load::<ParkedEntry>(&consumer.name, blocks.unwrap_or_default())
            .await?
        else {
            return Ok(Step::Overtaken);
        };
        let Some(found) = entries.into_iter().find(|entry| entry.position == key) else {
            return Ok(Step::Refused(ConsumerError::NotParked {
                consumer: name.clone(),
                position,
            }));
        };
        let changes = AdvanceChanges {
            parked: BTreeMap::from([(key, Some(found.resolved(resolution)))]),
            ..AdvanceChanges::default()
        };
        self.write(&consumer, consumer.clone(), changes).await
    }

    pub(super) async fn try_reset(&self, name: &ConsumerName, to: Position) -> Outcome<()> {
        let Some(consumer) = self.find_known(name).await? else {
            return Ok(Step::Refused(not_found(name)));
        };
        let to = to_i64(to.get());
        let behind = consumer.parked.partition_point(|block| block.last <= to);
        let blocks = consumer.parked.get(behind..).unwrap_or_default();
        // Blocks that lie wholly behind the position are left out without reading them.
        let across = blocks.first().filter(|block| block.first <= to);
        let across = across.map(std::slice::from_ref).unwrap_or_default();
        let Some(entries) = self.load::<ParkedEntry>(&consumer.name, across).await? else {
            return Ok(Step::Overtaken);
        };
        let kept = behind + across.len();
        let gone: Vec<_> = consumer.parked.get(kept..).unwrap_or_default().to_vec();
        let mut shortened = consumer.clone();
        shortened.parked.truncate(kept);
        let beyond = entries.into_iter().filter(|entry| entry.position > to);
        let changes = AdvanceChanges {
            parked: beyond.map(|entry| (entry.position, None)).collect(),
            ..AdvanceChanges::default()
        };
        let next = ConsumerDocument {
            position: to,
            term: consumer.term + 1,
            moved_at: self.micros_now(),
            holder: None,
            held_until: 0,
            ..shortened.clone()
        };
        let outcome = self.write(&shortened, next, changes).await?;
        if matches!(outcome, Step::Done(())) {
            let gone = gone.iter().map(|block| &block.id);
            self.discard(&consumer.name, gone).await;
        }
        Ok(outcome)
    }
}

fn check_limits(
    consumer: &ConsumerDocument,
    parked: &Rewritten<ParkedEntry>,
    timers: &Rewritten<TimerEntry>,
) -> Result<(), ConsumerError> {
    if number(parked.counts.1) > PARKED_MAX {
        return Err(ConsumerError::Full {
            consumer: ConsumerName::new(&consumer.name)?,
            limit: PARKED_MAX,
        });
    }
    let blocks = parked.references.len() + timers.references.len();
    if blocks > BLOCKS_MAX {
        return Err(ConsumerError::Invalid {
            what: "number of timers",
            value: format!("{}, in {blocks} blocks", timers.counts.1),
            expected: format!("{BLOCKS_MAX} blocks at most; cancel some of them"),
        });
    }
    Ok(())
}
