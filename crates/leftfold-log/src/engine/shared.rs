//! State that the writer, readers and maintenance share.
//!
//! **Owns:** [`EngineState`]: the published view, its replacement, and the counters.
//! **Does not know:** how appends are decided; what maintenance does.
//! **Invariants:** one small lock guards the replacement of the view; loading it takes none.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use leftfold_model::Position;

use super::{LogStats, scavenge_control::ScavengeControl, sync::Mutex};
use crate::{
    index::MemIndex,
    limits::LogOptions,
    planted::{self, Planted},
    read::{CommitNotifier, TouchedTerms, View, ViewSource},
    record::LogId,
    segment::{Segment, create},
};

/// State that several threads see.
#[derive(Debug)]
pub(crate) struct EngineState {
    pub(crate) log: LogId,
    pub(crate) options: LogOptions,
    view: ArcSwap<View>,
    change: Mutex<()>,
    /// Held while sealing, and while merging: sealing must not wait for a merge, which may take long.
    pub(super) maintenance: Mutex<()>,
    pub(super) merging: Mutex<()>,
    /// The preallocated segment, if there is one.
    pub(super) spare: Mutex<Option<create::PreallocatedSegment>>,
    pub(super) scavenging: ScavengeControl,
    pub(crate) notifier: Arc<CommitNotifier>,
    /// The newest position that was decided, durable or not: the index has everything up to it.
    pub(crate) decided: AtomicU64,
    closed: AtomicBool,
    /// Whether long operations must stop.
    stopping: AtomicBool,
    pub(crate) syncs: AtomicU64,
    /// Bytes written by those syncs.
    pub(crate) bytes: AtomicU64,
    pub(crate) appends: AtomicU64,
}

impl EngineState {
    pub(crate) fn new(log: LogId, options: LogOptions, view: View) -> Self {
        Self {
            log,
            options,
            decided: AtomicU64::new(view.head.get()),
            view: ArcSwap::from_pointee(view),
            change: Mutex::default(),
            maintenance: Mutex::default(),
            merging: Mutex::default(),
            spare: Mutex::default(),
            scavenging: ScavengeControl::default(),
            notifier: Arc::default(),
            closed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            appends: AtomicU64::new(0),
        }
    }

    /// Replaces the view with a changed one.
    pub(super) fn change(&self, change: impl FnOnce(&mut View)) {
        let early = planted::is(Planted::ViewReadBeforeLock).then(|| self.view());
        let _guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut view = View::clone(&early.unwrap_or_else(|| self.view()));
        change(&mut view);
        self.view.store(Arc::new(view));
    }

    /// Publishes everything up to `head` to readers, and wakes followers of the new events.
    pub(crate) fn publish(&self, head: Position, touched: &TouchedTerms) {
        self.change(|view| view.head = head);
        self.notifier.wake(touched);
    }

    /// Adds the segment that appends go to from now on.
    pub(crate) fn add_segment(&self, segment: Arc<Segment>, tail: Arc<MemIndex>) {
        self.change(|view| {
            view.segments.list = view
                .segments
                .list
                .iter()
                .cloned()
                .chain([segment])
                .collect();
            view.sources.tails = view.sources.tails.iter().cloned().chain([tail]).collect();
        });
    }

    /// Cancels merges in progress.
    pub(crate) fn cancel_merges(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.notifier.wake_all();
    }

    /// Cancels a scavenge in progress and lets none begin afterwards.
    pub(crate) fn stop_scavenging(&self) {
        self.scavenging.stop();
    }

    /// Returns sizes and counts of the log as it is now.
    pub(crate) fn stats(&self) -> LogStats {
        let view = self.view();
        let segments = view.segments.list.iter();
        let index_files = view.sources.index_files.iter();
        LogStats {
            events: view.head.get(),
            erased: segments
                .clone()
                .map(|segment| u64::from(segment.erased.events))
                .sum(),
            head: view.head,
            segments: view.segments.list.len() as u64,
            log_bytes: segments
                .map(|segment| u64::from(segment.locations.end()))
                .sum(),
            index_files: view.sources.index_files.len() as u64,
            index_bytes: index_files.map(|file| file.bytes()).sum(),
            appends: self.appends.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
        }
    }
}

impl ViewSource for EngineState {
    fn view(&self) -> Arc<View> {
        self.view.load_full()
    }
    fn notifier(&self) -> &Arc<CommitNotifier> {
        &self.notifier
    }
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
