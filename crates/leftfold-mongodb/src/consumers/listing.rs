//! Looking at consumers: parked events, timers that are due, where each consumer is.
//!
//! **Owns:** what is read for that, and in which portions. **Does not know:** how any of it changes.
//! **Invariants:** a look that meets a change begins again, so each answer is what stood at one moment; memory holds a few
//! blocks and the answer.

use futures_util::TryStreamExt;
use leftfold_model::Timestamp;
use leftfold_store::consumers::{
    ConsumerError, ConsumerName, ConsumerStatus, LIST_MAX, ListParked, ParkedEvent, Timer,
};
use mongodb::bson::{Document, doc};

use super::{
    MongoConsumers, Outcome, Step,
    document::{ParkedEntry, TimerEntry},
    unavailable,
};
use crate::{document::to_i64, read::with_retry};

/// Blocks that are read at once.
const BLOCKS_AT_ONCE: usize = 8;

impl MongoConsumers {
    pub(super) async fn try_parked(
        &self,
        consumer: &ConsumerName,
        list: &ListParked,
    ) -> Outcome<Vec<ParkedEvent>> {
        let mut found = Vec::new();
        let Some(document) = self.find_known(consumer).await? else {
            return Ok(Step::Done(found));
        };
        let limit = list.limit.min(LIST_MAX);
        let after = to_i64(list.after.get());
        let wanted = document.parked.into_iter();
        let wanted =
            wanted.filter(|block| block.last > after && (!list.resolved || block.mark > 0));
        let wanted: Vec<_> = wanted.collect();
        for blocks in wanted.chunks(BLOCKS_AT_ONCE) {
            let loaded = self.load::<ParkedEntry>(consumer.as_str(), blocks).await?;
            let Some(entries) = loaded else {
                return Ok(Step::Overtaken);
            };
            let events = entries.into_iter().map(ParkedEntry::decode);
            found.extend(events.filter(|event| list.selects(event)));
            if found.len() >= limit {
                break;
            }
        }
        found.truncate(limit);
        Ok(Step::Done(found))
    }

    pub(super) async fn try_due_timers(
        &self,
        consumer: &ConsumerName,
        now: Timestamp,
        limit: usize,
    ) -> Outcome<Vec<Timer>> {
        let mut found: Vec<TimerEntry> = Vec::new();
        let Some(document) = self.find_known(consumer).await? else {
            return Ok(Step::Done(Vec::new()));
        };
        let (now, limit) = (to_i64(now.as_micros()), limit.min(LIST_MAX));
        let mut due: Vec<_> = document
            .timers
            .into_iter()
            .filter(|block| block.mark <= now)
            .collect();
        // Earliest first, so that later blocks need not be read once enough was found before them.
        due.sort_by_key(|block| block.mark);
        for blocks in due.chunks(BLOCKS_AT_ONCE) {
            let earliest = blocks.first().map_or(i64::MAX, |block| block.mark);
            if found.len() >= limit && found.last().is_none_or(|last| last.due < earliest) {
                break;
            }
            let loaded = self.load::<TimerEntry>(consumer.as_str(), blocks).await?;
            let Some(entries) = loaded else {
                return Ok(Step::Overtaken);
            };
            found.extend(entries.into_iter().filter(|timer| timer.due <= now));
            found.sort_by(|a, b| (a.due, &a.id).cmp(&(b.due, &b.id)));
            found.truncate(limit);
        }
        Ok(Step::Done(
            found.into_iter().map(TimerEntry::decode).collect(),
        ))
    }

    /// Where the consumers are that a filter selects, by name.
    pub(super) async fn statuses(
        &self,
        filter: Document,
    ) -> Result<Vec<ConsumerStatus>, ConsumerError> {
        let look = || async {
            let now = self.now().await?;
            let finding = self
                .consumers
                .find(filter.clone())
                .sort(doc! { "_id": 1 })
                .limit(to_i64(LIST_MAX as u64))
                .projection(doc! { "parked": 0, "timers": 0 })
                .into_future();
            let mut cursor = self.log.within(finding).await?;
            let mut found = Vec::new();
            while let Some(consumer) = self.log.within(cursor.try_next()).await? {
                found.push(consumer);
            }
            Ok((now, found))
        };
        let (now, found) = with_retry(&self.log, look).await.map_err(unavailable)?;
        found.iter().map(|consumer| consumer.status(now)).collect()
    }
}
