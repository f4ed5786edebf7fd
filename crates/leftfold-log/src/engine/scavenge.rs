//! Scavenging an open log, segment by segment.
//!
//! **Owns:** [`Log::scavenge`] and [`Core::scavenge`]: the rate, stopping when the log closes, replacing the view.
//! **Does not know:** how a segment is rewritten. **Invariants:** one segment is rewritten at a time, and none after the log
//! is closed; a failed rewrite never poisons the log.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use leftfold_model::Position;

use super::{AppendError, Core, Log, scavenge_control::RateLimiter, shared::EngineState};
use crate::{
    read::{View, ViewSource},
    record::header::Erased,
    scavenge::{
        ScavengeError, ScavengeOptions, ScavengeProgress, Throttle, Truncation, TruncationSet,
        install, rewrite,
    },
    segment::{Locations, Segment},
};

/// Called after each segment; may end the run.
type ReportProgress<'a> = &'a mut dyn FnMut(&ScavengeProgress) -> ControlFlow<()>;

impl EngineState {
    /// Returns whether the newest segment holds truncated events.
    fn newest_has_truncated(&self, truncations: &TruncationSet) -> Result<bool, ScavengeError> {
        let view = self.view();
        let shares = truncations.erasable_per_segment(&view.segments, &view.sources, view.head)?;
        Ok(shares.last().is_some_and(|share| !share.is_none()))
    }

    /// Erases the truncated events of all segments that can be sealed: all but the newest.
    fn scavenge(
        &self,
        truncations: &TruncationSet,
        options: ScavengeOptions,
        report: ReportProgress<'_>,
    ) -> Result<ScavengeProgress, ScavengeError> {
        {
            let _not_while_closing = self.scavenging.segment();
            self.scavenging.pause(Duration::ZERO)?;
            self.seal_all()?;
        }
        let view = self.view();
        let shares = truncations.erasable_per_segment(&view.segments, &view.sources, view.head)?;
        let due = due(&view, &shares);
        let first_left = view.segments.list.get(sealed(&view));
        let mut progress = ScavengeProgress {
            segments_total: due.len() as u64,
            through: first_left.map_or(view.head, |left| left.first.previous()),
            ..ScavengeProgress::default()
        };
        drop(view);
        let limiter = RateLimiter::new(&self.scavenging, options.bytes_per_second);
        for (first, share) in due {
            self.scavenge_segment(
                first,
                share,
                truncations,
                options,
                &mut progress,
                &|bytes| limiter.acquire(bytes),
            )?;
            progress.segments_done += 1;
            if report(&progress).is_break() {
                break;
            }
        }
        Ok(progress)
    }

    /// Rewrites one segment and publishes it, unless another run has done so meanwhile.
    fn scavenge_segment(
        &self,
        first: Position,
        share: Erased,
        truncations: &TruncationSet,
        options: ScavengeOptions,
        progress: &mut ScavengeProgress,
        pace: Throttle<'_>,
    ) -> Result<(), ScavengeError> {
        let _one_at_a_time = self.scavenging.segment();
        pace(0)?;
        let view = self.view();
        let handles = &view.segments.handles;
        let index = view.segments.list.partition_point(|s| s.first < first);
        let Some(segment) = view.segments.list.get(index) else {
            return Ok(());
        };
        if segment.erased == share {
            return Ok(());
        }
        let rewritten = match rewrite(handles, self.log, segment, truncations, options, pace) {
            // The spare is the only room there is left; appends wait for it anyway.
            Err(ScavengeError::Storage { cause }) if cause.is_full() => {
                self.remove_spare();
                rewrite(handles, self.log, segment, truncations, options, pace)?
            }
            rewritten => rewritten?,
        };
        let Some(rewritten) = rewritten else {
            return Ok(());
        };
        let (events, bytes) = (rewritten.events, rewritten.bytes);
        let mut is_published = false;
        let placed = install(handles, segment, rewritten, |new| {
            self.replace_segment(&new);
            is_published = true;
        });
        if is_published {
            progress.events_erased += events;
            progress.bytes_reclaimed += bytes;
        }
        Ok(placed?)
    }
}

/// Counts the segments, from the oldest on, that are sealed; maintenance does not change them any more.
fn sealed(view: &View) -> usize {
    let is_sealed = |segment: &&Arc<Segment>| matches!(segment.locations, Locations::File(_));
    view.segments.list.iter().take_while(is_sealed).count()
}

/// Returns the sealed segments with truncated events that are not erased, and their share of them.
fn due(view: &View, shares: &[Erased]) -> Vec<(Position, Erased)> {
    let all = view.segments.list.iter().take(sealed(view)).zip(shares);
    all.filter(|(segment, share)| !share.is_none() && segment.erased != **share)
        .map(|(segment, share)| (segment.first, *share))
        .collect()
}

impl Core {
    /// As [`Log::scavenge`].
    ///
    /// # Errors
    /// [`ScavengeError`].
    pub fn scavenge(
        &mut self,
        truncations: &[Truncation],
        options: ScavengeOptions,
        progress: &mut dyn FnMut(&ScavengeProgress) -> ControlFlow<()>,
    ) -> Result<ScavengeProgress, ScavengeError> {
        let truncations = TruncationSet::of(truncations);
        if let Some(cause) = self.latched() {
            let cause = Arc::clone(cause);
            return Err(ScavengeError::ReadOnly { cause });
        }
        let shared = Arc::clone(self.shared());
        if options.seal_newest && shared.newest_has_truncated(&truncations)? {
            self.seal_newest().map_err(not_sealed)?;
        }
        shared.scavenge(&truncations, options, progress)
    }
}

impl Log {
    /// Erases the events below `truncations` and frees their space. Blocks the caller; appends, reads and followers continue.
    ///
    /// Rewrites every sealed segment that holds such events, oldest first. It leaves the newest segment alone unless
    /// [`ScavengeOptions::seal_newest`] is set. `progress` is called after each segment and may end the run there. Rewritten
    /// segments stay rewritten, and the next run continues with the others.
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use leftfold_log::{Log, LogOptions, ScavengeOptions, Truncation};
    /// # use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Read, Revision, StreamName};
    /// # let directory = tempfile::tempdir()?;
    /// # let log = Log::open(directory.path(), LogOptions::default())?;
    /// # let deposit = || NewEvent::json(EventType::new("DepositMade").unwrap(), r#"{"amount":100}"#);
    /// let account = StreamName::new("account-1")?;
    /// log.append(Append::to(account.clone(), ExpectedRevision::Any, vec![deposit(), deposit()])?)?;
    /// let truncations = [Truncation { stream: account.clone(), before: Revision::new(1) }];
    /// let options = ScavengeOptions::default().with_seal_newest();
    /// let done = log.scavenge(&truncations, options, &mut |_| ControlFlow::Continue(()))?;
    /// assert_eq!(done.events_erased, 1);
    /// let events = log.read(&Read::stream(account))?.next_batch()?.unwrap_or_default();
    /// assert_eq!(events.len(), 1);
    /// assert_eq!(events[0].revision, Revision::new(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Guarantees
    /// An erased event keeps position, revision, id, stream, type, tags and time, and loses data and metadata. Reads and
    /// followers skip it, including those in flight that have not reached it. It counts in expected revisions and in the
    /// counts of [`Log::streams`]. Append conditions match it, and the log recognises a repeated append of it. So no decision
    /// depends on what was scavenged (docs/durability.md, *Erased events*).
    ///
    /// # Errors
    /// [`ScavengeError`]: the run ended early; rewritten segments stay rewritten. After a disk error the log remains usable,
    /// with one exception: if the next segment cannot be created ([`ScavengeOptions::seal_newest`]) for another reason than
    /// a full disk or a lack of descriptors, the log accepts no more appends.
    /// # Cost
    /// One index lookup for every event below the truncations. Each rewritten segment is read twice; what stays of it is written,
    /// synced and read once.
    pub fn scavenge(
        &self,
        truncations: &[Truncation],
        options: ScavengeOptions,
        progress: &mut dyn FnMut(&ScavengeProgress) -> ControlFlow<()>,
    ) -> Result<ScavengeProgress, ScavengeError> {
        let truncations = TruncationSet::of(truncations);
        let running = &self.running;
        if let Some(cause) = running.commit_queue.latched() {
            return Err(ScavengeError::ReadOnly { cause });
        }
        let shared = &running.reader.shared;
        if options.seal_newest && shared.newest_has_truncated(&truncations)? {
            running.commit_queue.seal_newest().map_err(not_sealed)?;
        }
        shared.scavenge(&truncations, options, progress)
    }
}

/// Why the next segment was not started.
fn not_sealed(error: AppendError) -> ScavengeError {
    match error {
        AppendError::ReadOnly { cause } => ScavengeError::ReadOnly { cause },
        AppendError::DiskFull { cause }
        | AppendError::OutOfDescriptors { cause }
        | AppendError::IndexesBehind { cause }
        | AppendError::Unreadable { cause } => ScavengeError::Storage { cause },
        _ => ScavengeError::Closed,
    }
}

#[cfg(test)]
mod tests {
    use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Revision, StreamName};

    use super::*;
    use crate::{clock::SystemClock, disk::real::RealDisk, limits::LogOptions};

    #[test]
    fn a_segment_that_someone_may_be_sealing_is_not_due() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::at(directory.path()).unwrap());
        let options = LogOptions::default().with_segment_events(10);
        let mut core = Core::open(disk, options, Arc::new(SystemClock)).unwrap();
        let stream = StreamName::new("s").unwrap();
        let event = || NewEvent::json(EventType::new("T").unwrap(), "{}");
        for _ in 0..35 {
            let append = Append::to(stream.clone(), ExpectedRevision::Any, vec![event()]);
            core.commit(&[append.unwrap()]).remove(0).unwrap();
        }
        let before = Revision::new(u64::MAX);
        let truncations = TruncationSet::of(&[Truncation { stream, before }]);
        let due_now = |core: &Core| {
            let view = core.shared().view();
            let shares = truncations.erasable_per_segment(&view.segments, &view.sources, view.head);
            let due = due(&view, &shares.unwrap());
            due.into_iter()
                .map(|(first, _)| first.get())
                .collect::<Vec<_>>()
        };
        assert_eq!(due_now(&core), [0; 0], "nothing is sealed yet");
        core.shared().seal_all().unwrap();
        assert_eq!(due_now(&core), [1, 11, 21], "all but the newest");
    }
}
