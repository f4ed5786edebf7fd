//! Appends that wait until their conditions were searched for, and those that wait behind them.
//!
//! **Owns:** [`Pending`] and [`SearchLane`]. **Does not know:** the append function; the queue.
//! **Invariants:** bounded in appends and bytes; what does not fit is refused. A search that fails proves that nothing was
//! written. An append never overtakes one that was queued before it and concerns one of its streams. The first append in the
//! lane is searched for, so none waits forever. An append that was queued is decided although its caller is gone.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use leftfold_model::{Append, Appended, StreamName};
use leftfold_store::AppendError;
use tokio::{
    sync::oneshot,
    task::{Id, JoinError, JoinSet},
};

use super::{
    items::{ItemColumns, Searched},
    search::search,
};
use crate::{error::Failure, pool::Pool};

/// Maximum number of appends in the lane.
const APPENDS_MAX: usize = 1_024;
/// Maximum size of the lane in bytes.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The channel for the outcome of one append.
pub(crate) type OutcomeSender = oneshot::Sender<Result<Appended, AppendError>>;

/// A queued append, and the channel for its outcome.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(super) append: Append,
    pub(super) outcome: OutcomeSender,
    /// Numbers appends as they leave the queue.
    pub(super) order: u64,
    /// What was searched for its conditions already.
    pub(super) searched: Option<Searched>,
}

impl Pending {
    /// An append that was not queued yet.
    pub(crate) fn new(append: Append, outcome: OutcomeSender) -> Self {
        Self {
            append,
            outcome,
            order: 0,
            searched: None,
        }
    }

    /// Sends the outcome. Its caller may have dropped the future.
    pub(super) fn resolve(self, outcome: Result<Appended, AppendError>) {
        let _ = self.outcome.send(outcome);
    }
}

/// An append in the lane.
#[derive(Debug)]
struct Waiting {
    pending: Pending,
    searching: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SearchLane {
    pool: Arc<Pool>,
    /// By [`Pending::order`].
    waiting: BTreeMap<u64, Waiting>,
    bytes: usize,
    /// How many appends in the lane concern a stream.
    streams: HashMap<StreamName, usize>,
    searches: JoinSet<Result<Searched, Failure>>,
    /// Which append a search is for.
    searched_for: HashMap<Id, u64>,
}

/// The streams that an append writes or checks.
fn streams(append: &Append) -> impl Iterator<Item = &StreamName> {
    let written = append.writes().iter().map(|write| &write.stream);
    written.chain(append.checks().iter().map(|check| &check.stream))
}

impl SearchLane {
    /// A lane whose searches use the connections of `pool`.
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            waiting: BTreeMap::new(),
            bytes: 0,
            streams: HashMap::new(),
            searches: JoinSet::new(),
            searched_for: HashMap::new(),
        }
    }

    /// Returns whether an append in the lane comes before this one and concerns one of its streams.
    pub(crate) fn holds_up(&self, pending: &Pending) -> bool {
        let concerned = |stream: &StreamName| self.streams.contains_key(stream);
        if self.streams.is_empty() || !streams(&pending.append).any(concerned) {
            return false;
        }
        let touched: HashSet<_> = streams(&pending.append).collect();
        let mut earlier = self.waiting.range(..pending.order);
        earlier.any(|(_, it)| streams(&it.pending.append).any(|stream| touched.contains(stream)))
    }

    /// Returns whether a search runs. While none does, the lane is empty.
    pub(crate) fn is_searching(&self) -> bool {
        !self.searches.is_empty()
    }

    /// Starts the search for the conditions of an append. It begins where the append's last search ended.
    pub(crate) fn search(&mut self, pending: Pending) {
        let items = ItemColumns::of(&pending.append, pending.searched.as_ref());
        let order = pending.order;
        if self.push(pending, true) {
            let pool = Arc::clone(&self.pool);
            let task = self
                .searches
                .spawn(async move { search(&pool, &items).await });
            self.searched_for.insert(task.id(), order);
        }
    }

    /// Adds an append that one in the lane holds up.
    pub(crate) fn hold(&mut self, pending: Pending) {
        self.push(pending, false);
    }

    /// Returns whether there was room.
    fn push(&mut self, pending: Pending, searching: bool) -> bool {
        let size = pending.append.size();
        let full = self.waiting.len() >= APPENDS_MAX || self.bytes + size > BYTES_MAX;
        if full && !self.waiting.is_empty() {
            let cause = Arc::new(Failure::TooManySearches(self.waiting.len()));
            pending.resolve(Err(AppendError::Unavailable { cause }));
            return false;
        }
        for stream in streams(&pending.append) {
            *self.streams.entry(stream.clone()).or_default() += 1;
        }
        self.bytes += size;
        let waiting = Waiting { pending, searching };
        self.waiting.insert(waiting.pending.order, waiting);
        true
    }

    fn remove(&mut self, order: u64) -> Option<Pending> {
        let pending = self.waiting.remove(&order)?.pending;
        self.bytes = self.bytes.saturating_sub(pending.append.size());
        for stream in streams(&pending.append) {
            if let Some(count) = self.streams.get_mut(stream) {
                *count -= 1;
                if *count == 0 {
                    self.streams.remove(stream);
                }
            }
        }
        Some(pending)
    }

    /// Waits for a search to end, and returns the appends that can be decided then. Cancelling it loses nothing.
    pub(crate) async fn next_ready(&mut self) -> Vec<Pending> {
        if let Some(ended) = self.searches.join_next_with_id().await {
            self.end_search(ended);
        }
        self.take_ready()
    }

    /// Returns the appends that can be decided because of searches that have ended.
    pub(crate) fn ready(&mut self) -> Vec<Pending> {
        let mut any = false;
        while let Some(ended) = self.searches.try_join_next_with_id() {
            self.end_search(ended);
            any = true;
        }
        if any { self.take_ready() } else { Vec::new() }
    }

    fn end_search(&mut self, ended: Result<(Id, Result<Searched, Failure>), JoinError>) {
        let (id, found) = match ended {
            Ok((id, found)) => (id, found),
            Err(error) => (error.id(), Err(Failure::RuntimeEnded)),
        };
        let Some(order) = self.searched_for.remove(&id) else {
            return;
        };
        match found {
            Ok(searched) => {
                if let Some(waiting) = self.waiting.get_mut(&order) {
                    waiting.searching = false;
                    waiting.pending.searched = Some(searched);
                }
            }
            Err(failure) => {
                if let Some(pending) = self.remove(order) {
                    // A search writes nothing, whatever became of it.
                    let cause = Arc::new(failure);
                    pending.resolve(Err(AppendError::Unavailable { cause }));
                }
            }
        }
    }

    /// Takes the appends that need no search and concern no stream of an earlier one that stays.
    fn take_ready(&mut self) -> Vec<Pending> {
        let mut blocked = HashSet::new();
        let mut ready = Vec::new();
        for (&order, waiting) in &self.waiting {
            let append = &waiting.pending.append;
            if waiting.searching || streams(append).any(|stream| blocked.contains(stream)) {
                blocked.extend(streams(append));
            } else {
                ready.push(order);
            }
        }
        ready
            .into_iter()
            .filter_map(|order| self.remove(order))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leftfold_model::{EventType, ExpectedRevision::Any, NewEvent};

    fn pending(order: u64, stream: &str) -> Pending {
        let event = NewEvent::json(EventType::new("T").unwrap(), "{}");
        let append = Append::to(StreamName::new(stream).unwrap(), Any, vec![event]).unwrap();
        let mut pending = Pending::new(append, oneshot::channel().0);
        pending.order = order;
        pending
    }

    fn lane() -> SearchLane {
        let options = "postgres://nobody@localhost/none".parse().unwrap();
        SearchLane::new(Pool::new(options))
    }

    fn orders(ready: &[Pending]) -> Vec<u64> {
        ready.iter().map(|pending| pending.order).collect()
    }

    #[test]
    fn an_append_leaves_the_lane_behind_those_of_its_streams_and_before_others() {
        let mut lane = lane();
        lane.push(pending(1, "a"), true);
        lane.push(pending(4, "b"), false);
        lane.push(pending(3, "a"), false);
        assert!(lane.holds_up(&pending(2, "a")) && !lane.holds_up(&pending(0, "a")));
        assert!(!lane.holds_up(&pending(5, "c")));
        assert_eq!(orders(&lane.take_ready()), [4]);
        lane.waiting.get_mut(&1).unwrap().searching = false;
        assert_eq!(orders(&lane.take_ready()), [1, 3]);
        assert!(lane.streams.is_empty() && lane.waiting.is_empty());
        assert_eq!(lane.bytes, 0);
    }

    #[test]
    fn a_full_lane_refuses_appends_which_are_certainly_not_written() {
        let mut lane = lane();
        for order in 0..APPENDS_MAX as u64 {
            assert!(lane.push(pending(order, "a"), true));
        }
        let (sender, mut outcome) = oneshot::channel();
        let refused = Pending::new(pending(0, "a").append, sender);
        assert!(!lane.push(refused, true));
        let refused = outcome.try_recv().unwrap().unwrap_err();
        assert!(
            matches!(refused, AppendError::Unavailable { .. }),
            "{refused}"
        );
    }
}
