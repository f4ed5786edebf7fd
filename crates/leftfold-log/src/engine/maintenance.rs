//! Maintenance of an open log, one step at a time.
//!
//! **Owns:** the steps (prepare the next segment's file, seal a segment, merge index files, rebuild damaged ones), their
//! order, and the maintenance backlog. **Does not know:** on which thread a step runs, or when.
//! **Invariants:** sealing and merging each hold their own lock, so no two steps of one kind run at once; sealing only adds
//! index files after those that are being merged; a file is removed only when no new view names it.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use super::{shared::EngineState, sync::MutexGuard};
use crate::{
    cache::FileCache,
    disk::{FileKind, FileName},
    error::StorageError,
    index::{IndexFile, MemIndex, pick_merge},
    maintenance,
    planted::{self, Planted},
    read::{View, ViewSource},
    record::Checksum,
    recover::{ScannedSegment, scan_segment},
    segment::{Locations, Segment, create, locations, scan::Scan},
};

/// Maximum memory of mem indexes that wait to be flushed, approximately.
const TAILS_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Maximum number of segments that wait to be sealed.
const TAILS_MAX: usize = 32;
/// Maximum maintenance backlog before the writer helps: all of the memory.
const OWED_MAX: usize = 1_000;

/// Writes of more bytes per sync gain nothing from zeros written before.
const SMALL_SYNC_BYTES: u64 = 32 * 1024;

impl EngineState {
    /// Calls `create` with the preallocated segment, if there is one of this many bytes. Meanwhile no other is prepared.
    pub(crate) fn with_spare<R>(
        &self,
        bytes: u64,
        create: impl FnOnce(Option<create::PreallocatedSegment>) -> R,
    ) -> R {
        let mut spare = self.spare();
        let fitting = spare.take_if(|spare| spare.bytes == bytes);
        create(fitting)
    }

    fn spare(&self) -> MutexGuard<'_, Option<create::PreallocatedSegment>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether so many segments wait for their index files that the writer has to help.
    pub(crate) fn should_stall_writes(&self) -> bool {
        self.maintenance_backlog() >= OWED_MAX
    }

    /// Returns the used share of the memory for mem indexes that wait to be flushed, in thousandths.
    pub(crate) fn maintenance_backlog(&self) -> usize {
        let view = self.view();
        let waiting = view.sources.tails.len().saturating_sub(1);
        if waiting == 0 {
            return 0;
        }
        let bytes: usize = view.sources.tails.iter().map(|tail| tail.bytes()).sum();
        (bytes / (TAILS_BYTES_MAX / OWED_MAX)).max(waiting * OWED_MAX / TAILS_MAX)
    }

    /// Locks maintenance for the caller; readers and the writer continue.
    pub(crate) fn lock_maintenance(&self) -> MutexGuard<'_, ()> {
        self.maintenance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the most urgent step of the maintenance that appends may have to wait for; `false` if there was nothing
    /// to do.
    pub(crate) fn maintain(&self) -> Result<bool, StorageError> {
        let _one_at_a_time = self.lock_maintenance();
        // Where there is no room for the spare, sealing and rebuilding go on: they need little, and sealing frees some.
        let steps: [Step<'_>; 4] = [
            &|| self.prepare_spare(),
            &|| self.seal_oldest(),
            &|| self.rebuild_damaged_locations(),
            &|| self.fill_spare(),
        ];
        first_possible(steps)
    }

    /// Rebuilds every index and locations file that reads found to be damaged and that can be rebuilt, unless the log is closed:
    /// its directory may be another's by then. An error only if nothing was rebuilt.
    pub(super) fn rebuild_damaged(&self) -> Result<(), StorageError> {
        let one_at_a_time = self.lock_maintenance();
        let locations = self.rebuild_all(&|| self.rebuild_damaged_locations());
        drop(one_at_a_time);
        let _one_at_a_time = self.lock_merging();
        let indexes = self.rebuild_all(&|| self.rebuild_damaged_index());
        match (locations, indexes) {
            (Ok(true), _) | (_, Ok(true)) => Ok(()),
            (locations, indexes) => locations.and(indexes).map(drop),
        }
    }

    /// Repeats a step that rebuilds one file as long as it can; returns whether it could.
    fn rebuild_all(&self, step: Step<'_>) -> Result<bool, StorageError> {
        let mut is_rebuilt = false;
        loop {
            match self.check_running().and_then(|()| step()) {
                Ok(true) => is_rebuilt = true,
                Err(error) if !is_rebuilt => return Err(error),
                Ok(false) | Err(_) => return Ok(is_rebuilt),
            }
        }
    }

    fn check_running(&self) -> Result<(), StorageError> {
        match self.is_stopping() {
            true => {
                let closed = std::io::Error::other("the log is closed");
                Err(StorageError::directory("rebuild indexes in", closed))
            }
            false => Ok(()),
        }
    }

    /// Waits until no caller rebuilds anything. None begins afterwards, because the log is stopping.
    pub(super) fn finish_rebuilding(&self) {
        drop(self.lock_maintenance());
        drop(self.lock_merging());
    }

    fn lock_merging(&self) -> MutexGuard<'_, ()> {
        self.merging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Merges index files if a merge is due, more eagerly while the log is `idle`; `false` if there was nothing to do.
    pub(crate) fn merge_indexes(&self, idle: bool) -> Result<bool, StorageError> {
        let _one_at_a_time = self.lock_merging();
        // An index that cannot be rebuilt, as that of a damaged segment, does not keep others from being merged.
        let steps: [Step<'_>; 2] = [&|| self.rebuild_damaged_index(), &|| {
            self.merge_adjacent(idle)
        }];
        first_possible(steps)
    }

    /// Seals every segment but the newest.
    pub(crate) fn seal_all(&self) -> Result<(), StorageError> {
        let _one_at_a_time = self.lock_maintenance();
        while self.seal_oldest()? {}
        Ok(())
    }

    /// Removes the preallocated segment to free its space. Otherwise the next open would remove it.
    pub(crate) fn remove_spare(&self) {
        if self.spare().take().is_some() {
            let view = self.view();
            let disk = view.segments.handles.disk();
            let _ = disk.remove(&FileName::of(FileKind::Spare));
        }
    }

    fn prepare_spare(&self) -> Result<bool, StorageError> {
        let view = self.view();
        let bytes = self.options.bytes_of_segment(view.segments.list.len());
        let mut spare = self.spare();
        if spare.as_ref().is_some_and(|spare| spare.bytes == bytes) {
            return Ok(false);
        }
        *spare = None;
        *spare = Some(create::PreallocatedSegment::prepare(
            &view.segments.handles,
            bytes,
        )?);
        Ok(true)
    }

    /// Returns whether syncs are so small that their data costs less than their metadata.
    fn syncs_are_small(&self) -> bool {
        let syncs = self.syncs.load(Ordering::Relaxed);
        syncs > 0 && self.bytes.load(Ordering::Relaxed) / syncs < SMALL_SYNC_BYTES
    }

    /// Writes zeros into the preallocated segment; a caller that needs it meanwhile waits for one write, and uses it as it is.
    fn fill_spare(&self) -> Result<bool, StorageError> {
        let mut spare = self.spare();
        match spare.as_mut() {
            Some(preallocated) if self.syncs_are_small() => {
                let filled = preallocated.fill();
                if filled.is_err() {
                    // Nothing is known of its bytes after a failed sync: another file takes its place, if there is room for one.
                    *spare = None;
                    let view = self.view();
                    let _ = view
                        .segments
                        .handles
                        .disk()
                        .remove(&FileName::of(FileKind::Spare));
                }
                filled
            }
            _ => Ok(false),
        }
    }

    fn seal_oldest(&self) -> Result<bool, StorageError> {
        let view = self.view();
        let ([tail, _, ..], handles) = (&*view.sources.tails, &view.segments.handles) else {
            return Ok(false);
        };
        let index = view
            .segments
            .list
            .partition_point(|segment| segment.first < tail.first());
        let Some(segment) = view.segments.list.get(index) else {
            return Ok(false);
        };
        let sealed = match segment.locations {
            Locations::Memory(_) => maintenance::seal(handles, self.log, segment)?,
            Locations::File(_) => Arc::clone(segment),
        };
        let index_file = maintenance::flush_index(handles, self.log, &sealed, tail)?;
        // Who looks at an older view finds the way when scavenging takes the files.
        if !planted::is(Planted::SealedNotLedOn) {
            segment.replace(Arc::clone(&sealed));
        }
        self.change(|view| {
            let same = |other: &Arc<Segment>| {
                if other.first == sealed.first {
                    &sealed
                } else {
                    other
                }
                .clone()
            };
            view.segments.list = view.segments.list.iter().map(same).collect();
            view.sources.index_files = view
                .sources
                .index_files
                .iter()
                .cloned()
                .chain([index_file])
                .collect();
            view.sources.tails = view.sources.tails.iter().skip(1).cloned().collect();
        });
        let tail = Arc::clone(tail);
        drop(view);
        drop_off_hot_path(tail);
        Ok(true)
    }

    /// Rebuilds a locations file that a read found to be damaged: the first that can be rebuilt.
    fn rebuild_damaged_locations(&self) -> Result<bool, StorageError> {
        // Scavenging replaces segments, too. It marks nothing, so the next step tries again.
        let Some(_not_while_rewriting) = self.scavenging.try_segment() else {
            return Ok(false);
        };
        let view = self.view();
        let segments = view.segments.list.iter();
        let damaged = segments.filter(|s| s.has_damaged_locations.load(Ordering::Acquire));
        let rebuild = |segment| self.rebuild_locations(segment, &view.segments.handles);
        first_possible(damaged.map(|segment| move || rebuild(segment).map(|()| true)))
    }

    fn rebuild_locations(
        &self,
        segment: &Arc<Segment>,
        handles: &FileCache,
    ) -> Result<(), StorageError> {
        let rebuilt = self.scan_sealed(segment, handles)?;
        let header = segment.header(self.log);
        let sealed = locations::write(handles, &header, &rebuilt.growing)?;
        handles.forget(&segment.locations_name());
        let rebuilt = Arc::new(Segment::of(&header, Locations::File(sealed)));
        segment.replace(Arc::clone(&rebuilt));
        self.replace_segment(&rebuilt);
        Ok(())
    }

    /// Rebuilds an index file that a read found to be damaged, as one file per segment: the first that can be rebuilt.
    fn rebuild_damaged_index(&self) -> Result<bool, StorageError> {
        let view = self.view();
        let files = view.sources.index_files.iter();
        let damaged = files.filter(|file| file.is_damaged());
        let rebuild = |file| self.rebuild_index(file, &view);
        first_possible(damaged.map(|file| move || rebuild(file).map(|()| true)))
    }

    fn rebuild_index(&self, damaged: &Arc<IndexFile>, view: &View) -> Result<(), StorageError> {
        let handles = &view.segments.handles;
        // Views that use it keep reading it; a rebuilt file may get its name.
        damaged.pin()?;
        let covers = |s: &&Arc<Segment>| (damaged.first()..=damaged.last()).contains(&s.first);
        let mut rebuilt = Vec::new();
        for segment in view.segments.list.iter().filter(covers) {
            let scanned = self.scan_sealed(segment, handles)?;
            let index = maintenance::flush_index(handles, self.log, segment, &scanned.tail)?;
            rebuilt.push(index);
        }
        self.change(|view| {
            let mut index_files = view.sources.index_files.to_vec();
            if let Some(at) = index_files
                .iter()
                .position(|file| Arc::ptr_eq(file, damaged))
            {
                index_files.splice(at..=at, rebuilt.iter().cloned());
            }
            view.sources.index_files = index_files.into();
        });
        if rebuilt.iter().all(|file| file.name() != damaged.name()) {
            maintenance::remove_merged(handles, &[Arc::clone(damaged)])?;
        }
        Ok(())
    }

    /// Reads a sealed segment and checks that it is whole.
    fn scan_sealed(
        &self,
        segment: &Segment,
        handles: &FileCache,
    ) -> Result<ScannedSegment, StorageError> {
        let (name, file) = (segment.name(), segment.file(handles)?);
        let seal = Checksum::of(self.log);
        let mut scan = Scan::of(file.as_ref(), name, seal, segment.first)?;
        let scanned = scan_segment(&mut scan, &name, segment.first, &mut |_| Ok(()))?;
        let count = u64::from(segment.locations.count());
        if scanned.next.get() - segment.first.get() != count {
            return Err(StorageError::corrupt(&name, scanned.end, scanned.why));
        }
        Ok(scanned)
    }

    /// Publishes a segment in place of the one with that first position.
    pub(super) fn replace_segment(&self, new: &Arc<Segment>) {
        self.change(|view| {
            let mut list = view.segments.list.to_vec();
            for segment in list.iter_mut().filter(|old| old.first == new.first) {
                *segment = Arc::clone(new);
            }
            view.segments.list = list.into();
        });
    }

    fn merge_adjacent(&self, idle: bool) -> Result<bool, StorageError> {
        let view = self.view();
        let handles = &view.segments.handles;
        if handles.disk().is_read_only() {
            // What is merged would stay in memory, and the next reader would merge it again.
            return Ok(false);
        }
        if handles.has_many_pinned() {
            // Appends and reads need descriptors more than fewer files to look at.
            return Ok(false);
        }
        let covered =
            |index_file: &Arc<IndexFile>| index_file.last().next().get() - index_file.first().get();
        let covered: Vec<u64> = view.sources.index_files.iter().map(covered).collect();
        let Some(run) = pick_merge(&covered, idle) else {
            return Ok(false);
        };
        let parts: Vec<Arc<IndexFile>> = view
            .sources
            .index_files
            .get(run.clone())
            .unwrap_or_default()
            .to_vec();
        let Some(merged) =
            maintenance::merge_indexes(handles, self.log, &parts, &|| !self.is_stopping())?
        else {
            return Ok(false);
        };
        self.change(|view| {
            let mut index_files = view.sources.index_files.to_vec();
            index_files.splice(run, [merged]);
            view.sources.index_files = index_files.into();
        });
        maintenance::remove_merged(handles, &parts)?;
        Ok(true)
    }
}

/// A step of maintenance; `false` if there was nothing to do.
type Step<'a> = &'a dyn Fn() -> Result<bool, StorageError>;

/// Does the first of these steps that has something to do and can do it. One that fails keeps no later one from being done; its
/// error is returned if nothing was done.
fn first_possible<S: Fn() -> Result<bool, StorageError>>(
    steps: impl IntoIterator<Item = S>,
) -> Result<bool, StorageError> {
    let mut failed = None;
    for step in steps {
        match step() {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(false), Err)
}

/// Drops a flushed mem index on this thread, once its last reader is done, so that no writer or reader pays for freeing it.
fn drop_off_hot_path(tail: Arc<MemIndex>) {
    for _ in 0..1_000 {
        if Arc::strong_count(&tail) == 1 {
            break;
        }
        std::thread::yield_now();
    }
    drop(tail);
}
