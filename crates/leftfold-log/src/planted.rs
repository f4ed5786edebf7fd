//! Deliberate bugs that the simulation must find.
//!
//! **Owns:** the list of [`Planted`] bugs and the switch. **Does not know:** where they are planted.
//! **Invariants:** without the feature `planted` the switch is off at compile time; the switch is per thread, and only a
//! simulation sets it.

/// A mistake the engine could make. Each one has broken a real system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// Appends are acknowledged although the sync was left out.
    AckBeforeSync,
    /// A new segment's name is not made durable before it is used.
    NoDirectorySyncAtRoll,
    /// A failed sync is retried, and trusted when it then succeeds.
    FailedSyncRetried,
    /// Recovery serves the tail as it reads it, without copying it to a fresh file.
    TailNotCopied,
    /// Recovery's copy of the tail is installed before it is synced.
    CopyNotSynced,
    /// Recovery's rename is not made durable.
    CopyNameNotSynced,
    /// A record's checksum is not verified.
    RecordUnchecked,
    /// A frame header's checksum is not verified.
    HeaderUnchecked,
    /// The scan looks for frames behind a damaged one.
    ScanJumpsHole,
    /// The ids of recent events are not collected at open.
    RecentIdsForgotten,
    /// Readers see events before they are synced.
    PublishedBeforeSync,
    /// The clean-stop marker is trusted although the log continues after it.
    MarkerBelieved,
    /// The index of a segment is installed before it is synced.
    IndexNotSynced,
    /// A segment that scavenging rewrote is installed before it is synced.
    RewriteNotSynced,
    /// A file of the index that holds one event behind a condition's token is not looked at.
    HasAfterOffByOne,
    /// Names of the segment before are referred to in a new one.
    NamesKeptAtRoll,
    /// Checks of streams that are not written are not looked at.
    ChecksIgnored,
    /// Refusals and repetitions are answered before what they rest on is durable.
    AnsweredBeforeDurable,
    /// What was looked up of streams before an append's turn is used although a segment was started since.
    StalePrepared,
    /// A segment starts although a group of the one before it is being written.
    RollDoesNotWait,
    /// The writer thread is not woken for a group that is handed to it.
    HandOverNotNotified,
    /// A panic of a thread that writes leaves the queue open.
    PanicLeavesQueueOpen,
    /// A changed view is made of one that was read before the lock.
    ViewReadBeforeLock,
    /// Readers of an older view do not learn which segment was sealed.
    SealedNotLedOn,
    /// Readers of an older view do not learn which segment was rewritten.
    RewrittenNotLedOn,
    /// A full disk when the directory is synced counts as an operation that changed nothing.
    FullDirectoryChangedNothing,
    /// The segment that it replaces is removed before the new one's name is durable.
    OldRemovedBeforeNewIsDurable,
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Planted;

    thread_local! {
        static SWITCH: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Turns one bug on for this thread, or all off.
    pub fn set(bug: Option<Planted>) {
        SWITCH.set(bug);
    }

    /// Returns whether this bug is on.
    pub(crate) fn is(bug: Planted) -> bool {
        SWITCH.get() == Some(bug)
    }
}

#[cfg(feature = "planted")]
pub(crate) use switch::is;
#[cfg(feature = "planted")]
pub use switch::set;

/// Returns whether this bug is on.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_bug: Planted) -> bool {
    false
}
