//! Consumers in the database, without transactions.
//!
//! **Owns:** [`MongoConsumers`]: the collections `consumers` and `consumer_blocks`, and every change by compare-and-set.
//! **Does not know:** what a consumer does.
//! **Invariants:** one document says everything about a consumer: checkpoint, term, holder, and which blocks hold what it
//! parked and its timers. A change replaces that document's fields only in the version it was decided on, so it happens whole
//! or not at all, and a holder that was overtaken changes nothing. Blocks never change. Only the server's clock is compared.
//! **Reading order:** [`MongoConsumers`], `document`, `blocks`, `advance`, `listing`.

mod advance;
mod blocks;
mod document;
mod listing;

use std::{sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use futures_util::TryStreamExt;
use leftfold_model::{Position, Timestamp};
use leftfold_store::consumers::{
    Claim, ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, ConsumerStatus, Consumers,
    ListParked, ParkedEvent, Resolution, Timer, check_ttl,
};
use mongodb::{
    Collection,
    bson::{Document, doc},
};
use tokio::time::{Instant, sleep};

use self::{
    blocks::{Block, BlockReference, Entry},
    document::{ConsumerDocument, number},
};
use crate::{document::to_i64, error::Failure, log::Log, read::with_retry};

/// The first wait after another change came between, and the longest.
const BACKOFF_INITIAL: Duration = Duration::from_millis(2);
const BACKOFF_MAX: Duration = Duration::from_millis(200);

/// The consumers of a store.
#[derive(Debug)]
pub(crate) struct MongoConsumers {
    log: Log,
    consumers: Collection<ConsumerDocument>,
    clock: fn() -> Timestamp,
}

/// How a step on a consumer ended, if the server answered.
enum Step<T> {
    Done(T),
    Refused(ConsumerError),
    /// Another change came between reading and writing.
    Overtaken,
}

type Outcome<T> = Result<Step<T>, Failure>;

impl MongoConsumers {
    pub(crate) fn new(log: Log, clock: fn() -> Timestamp) -> Self {
        Self {
            consumers: log.collection("consumers"),
            log,
            clock,
        }
    }

    /// Repeats a step until no other change comes between, and the server answers.
    async fn repeat<T, F>(&self, step: impl Fn() -> F) -> Result<T, ConsumerError>
    where
        F: Future<Output = Outcome<T>>,
    {
        let limit = self.log.options().reconnect_timeout;
        let end = Instant::now() + limit;
        let mut backoff = BACKOFF_INITIAL;
        loop {
            match with_retry(&self.log, &step).await {
                Ok(Step::Done(done)) => return Ok(done),
                Ok(Step::Refused(error)) => return Err(error),
                Ok(Step::Overtaken) if Instant::now() < end => {
                    sleep(backoff.mul_f64(fastrand::f64())).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                Ok(Step::Overtaken) => return Err(unavailable(Failure::Contended(limit))),
                Err(failure) => return Err(unavailable(failure)),
            }
        }
    }

    /// The server's time, in milliseconds since 1970.
    async fn now(&self) -> Result<i64, Failure> {
        let hello = self.log.command(doc! { "hello": 1 }).await?;
        let now = hello.get_datetime("localTime");
        now.map(|now| now.timestamp_millis())
            .map_err(|_| Failure::Unexpected("hello without localTime".to_owned()))
    }

    fn micros_now(&self) -> i64 {
        to_i64((self.clock)().as_micros())
    }

    async fn find(&self, name: &ConsumerName) -> Result<Option<ConsumerDocument>, Failure> {
        let finding = self.consumers.find_one(doc! { "_id": name.as_str() });
        self.log.within(finding.into_future()).await
    }

    async fn find_known(&self, name: &ConsumerName) -> Result<Option<ConsumerDocument>, Failure> {
        let found = self.find(name).await?;
        Ok(found.filter(|consumer| !consumer.removed))
    }

    /// Replaces a consumer if it still has the version before; returns whether it did.
    async fn replace(&self, consumer: &ConsumerDocument) -> Result<bool, Failure> {
        let filter = doc! { "_id": &consumer.name, "version": consumer.version - 1 };
        let replacing = self.consumers.replace_one(filter, consumer).into_future();
        Ok(self.log.within(replacing).await?.matched_count == 1)
    }

    async fn update(&self, filter: Document, update: Document) -> Result<bool, Failure> {
        let updating = self.consumers.update_one(filter, update).into_future();
        Ok(self.log.within(updating).await?.matched_count == 1)
    }

    fn blocks<E: Entry>(&self) -> Collection<Block<E>> {
        self.log.collection("consumer_blocks")
    }

    /// Reads the entries of blocks, in their order; `None` if one is gone, because the consumer has changed.
    async fn load<E: Entry>(
        &self,
        consumer: &str,
        references: &[BlockReference<E::Key>],
    ) -> Result<Option<Vec<E>>, Failure> {
        if references.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let ids: Vec<_> = references
            .iter()
            .map(|block| block_id(consumer, &block.id))
            .collect();
        let blocks = self.blocks::<E>();
        let finding = blocks.find(by_ids(ids));
        let mut cursor = self.log.within(finding.into_future()).await?;
        let mut found = Vec::with_capacity(references.len());
        while let Some(block) = self.log.within(cursor.try_next()).await? {
            found.push(block);
        }
        if found.len() < references.len() {
            return Ok(None);
        }
        let mut entries: Vec<E> = found.into_iter().flat_map(|block| block.entries).collect();
        entries.sort_by_key(Entry::key);
        Ok(Some(entries))
    }

    /// Inserts blocks for a change of a consumer that has this version.
    async fn insert<E: Entry>(
        &self,
        consumer: &ConsumerDocument,
        added: Vec<(String, Vec<E>)>,
    ) -> Result<(), Failure> {
        if added.is_empty() {
            return Ok(());
        }
        let blocks: Vec<_> = added
            .into_iter()
            .map(|(id, entries)| Block {
                id: block_id(&consumer.name, &id),
                consumer: consumer.name.clone(),
                version: consumer.version,
                entries,
            })
            .collect();
        let collection = self.blocks::<E>();
        let inserting = collection.insert_many(blocks).into_future();
        self.log.within(inserting).await.map(drop)
    }

    /// Removes blocks to which nothing refers. If that fails they stay until the consumer is claimed by another holder.
    async fn discard(&self, consumer: &str, ids: impl Iterator<Item = &String>) {
        let ids: Vec<_> = ids.map(|id| block_id(consumer, id)).collect();
        if ids.is_empty() {
            return;
        }
        let blocks = self.log.collection::<Document>("consumer_blocks");
        let removing = blocks.delete_many(by_ids(ids));
        if let Err(failure) = self.log.within(removing.into_future()).await {
            tracing::debug!(%failure, consumer, "unused blocks not removed");
        }
    }

    /// Removes blocks of changes that never took effect.
    ///
    /// A block that a later version refers to was written for this version or a later one, so it stays.
    async fn discard_abandoned(&self, consumer: &ConsumerDocument) {
        let parked = consumer.parked.iter().map(|block| &block.id);
        let timers = consumer.timers.iter().map(|block| &block.id);
        let used: Vec<_> = parked
            .chain(timers)
            .map(|id| block_id(&consumer.name, id))
            .collect();
        let blocks = self.log.collection::<Document>("consumer_blocks");
        let removing = blocks.delete_many(doc! {
            "_id": { "$gte": block_id(&consumer.name, ""), "$lt": format!("{}0", consumer.name), "$nin": used },
            "consumer": &consumer.name,
            "version": { "$lt": consumer.version },
        });
        if let Err(failure) = self.log.within(removing.into_future()).await {
            tracing::debug!(%failure, consumer = consumer.name, "abandoned blocks not removed");
        }
    }

    async fn try_claim(&self, request: &ClaimRequest) -> Outcome<Claim> {
        let now = self.now().await?;
        let found = self.find(&request.consumer).await?;
        let is_new = found.is_none();
        let mut consumer = found.unwrap_or_else(|| ConsumerDocument {
            name: request.consumer.as_str().to_owned(),
            version: 0,
            position: to_i64(request.start.get()),
            term: 0,
            moved_at: self.micros_now(),
            holder: None,
            held_until: 0,
            parked_count: 0,
            timer_count: 0,
            removed: false,
            parked: Vec::new(),
            timers: Vec::new(),
        });
        let held = consumer.held(now);
        if let Some((holder, remaining)) = &held
            && *holder != request.holder
        {
            return Ok(Step::Refused(ConsumerError::Held {
                consumer: request.consumer.clone(),
                holder: holder.clone(),
                remaining: *remaining,
            }));
        }
        if consumer.removed {
            consumer.position = to_i64(request.start.get());
            consumer.moved_at = self.micros_now();
            consumer.removed = false;
        }
        consumer.version += 1;
        consumer.term += i64::from(held.is_none());
        consumer.holder = Some(request.holder.clone());
        consumer.held_until = now.saturating_add(millis(request.ttl));
        let claimed = if is_new {
            match self
                .log
                .within(self.consumers.insert_one(&consumer).into_future())
                .await
            {
                Ok(_) => true,
                Err(failure) if failure.is_duplicate_key() => false,
                Err(failure) => return Err(failure),
            }
        } else {
            self.replace(&consumer).await?
        };
        if !claimed {
            return Ok(Step::Overtaken);
        }
        if held.is_none() && !is_new {
            self.discard_abandoned(&consumer).await;
        }
        Ok(Step::Done(Claim {
            consumer: request.consumer.clone(),
            holder: request.holder.clone(),
            term: number(consumer.term),
            position: Position::new(number(consumer.position)),
        }))
    }

    /// Changes who holds a consumer, under the term of a claim; `None` ends it.
    async fn try_hold(&self, claim: &Claim, ttl: Option<Duration>) -> Outcome<()> {
        let fields = match ttl {
            Some(ttl) => {
                let until = self.now().await?.saturating_add(millis(ttl));
                doc! { "holder": &claim.holder, "held_until": until }
            }
            None => doc! { "holder": null, "held_until": 0_i64 },
        };
        let filter = doc! { "_id": claim.consumer.as_str(), "term": to_i64(claim.term) };
        let update = doc! { "$set": fields, "$inc": { "version": 1_i64 } };
        if self.update(filter, update).await? {
            return Ok(Step::Done(()));
        }
        let newest = self.find(&claim.consumer).await?;
        let newest = newest.map_or(0, |consumer| number(consumer.term));
        Ok(match claim.check_term(newest) {
            Ok(()) => Step::Overtaken,
            Err(lost) => Step::Refused(lost),
        })
    }

    async fn try_remove(&self, name: &ConsumerName) -> Outcome<()> {
        let now = self.now().await?;
        let Some(found) = self.find_known(name).await? else {
            return Ok(Step::Done(()));
        };
        if let Some((holder, remaining)) = found.held(now) {
            return Ok(Step::Refused(ConsumerError::Held {
                consumer: name.clone(),
                holder,
                remaining,
            }));
        }
        let removed = ConsumerDocument {
            version: found.version + 1,
            term: found.term + 1,
            holder: None,
            held_until: 0,
            parked_count: 0,
            timer_count: 0,
            removed: true,
            parked: Vec::new(),
            timers: Vec::new(),
            ..found.clone()
        };
        if !self.replace(&removed).await? {
            return Ok(Step::Overtaken);
        }
        let parked = found.parked.iter().map(|block| &block.id);
        let timers = found.timers.iter().map(|block| &block.id);
        self.discard(&found.name, parked.chain(timers)).await;
        Ok(Step::Done(()))
    }
}

/// The key of a block. A name is followed by `/` and has keys below the name and `0`, the next character.
fn block_id(consumer: &str, id: &str) -> String {
    format!("{consumer}/{id}")
}

/// The filter for documents of these keys. Some servers use their index for one key only without `$in`.
fn by_ids(ids: Vec<String>) -> Document {
    match <[String; 1]>::try_from(ids) {
        Ok([id]) => doc! { "_id": id },
        Err(ids) => doc! { "_id": { "$in": ids } },
    }
}

/// A duration in milliseconds, rounded up.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX)
}

fn unavailable(failure: Failure) -> ConsumerError {
    document::damaged(&failure).unwrap_or_else(|| ConsumerError::Unavailable {
        cause: Arc::new(failure),
    })
}

fn not_found(consumer: &ConsumerName) -> ConsumerError {
    ConsumerError::NotFound {
        consumer: consumer.clone(),
    }
}

impl Consumers for MongoConsumers {
    fn claim<'a>(
        &'a self,
        request: &'a ClaimRequest,
    ) -> BoxFuture<'a, Result<Claim, ConsumerError>> {
        Box::pin(async move {
            request.check()?;
            self.repeat(|| self.try_claim(request)).await
        })
    }

    fn renew<'a>(
        &'a self,
        claim: &'a Claim,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            check_ttl(ttl)?;
            self.repeat(|| self.try_hold(claim, Some(ttl))).await
        })
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            match self.repeat(|| self.try_hold(claim, None)).await {
                Err(ConsumerError::Lost { .. }) => Ok(()),
                outcome => outcome,
            }
        })
    }

    fn advance<'a>(
        &'a self,
        claim: &'a mut Claim,
        to: Position,
        changes: Vec<ConsumerChange>,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            self.advanced(claim, to, changes).await?;
            claim.position = to;
            Ok(())
        })
    }

    fn due_timers<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Timer>, ConsumerError>> {
        Box::pin(self.repeat(move || self.try_due_timers(consumer, now, limit)))
    }

    fn parked<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        list: &'a ListParked,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, ConsumerError>> {
        Box::pin(self.repeat(move || self.try_parked(consumer, list)))
    }

    fn resolve<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        position: Position,
        resolution: Resolution,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(self.repeat(move || self.try_resolve(consumer, position, resolution)))
    }

    fn status<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<Option<ConsumerStatus>, ConsumerError>> {
        Box::pin(async move {
            let filter = doc! { "_id": consumer.as_str(), "removed": false };
            let mut found = self.statuses(filter).await?;
            Ok(found.pop())
        })
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, ConsumerError>> {
        let after = after.map_or("", ConsumerName::as_str);
        let filter = doc! { "_id": { "$gt": after }, "removed": false };
        Box::pin(self.statuses(filter))
    }

    fn reset<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        to: Position,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(self.repeat(move || self.try_reset(consumer, to)))
    }

    fn remove<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(self.repeat(move || self.try_remove(consumer)))
    }
}
