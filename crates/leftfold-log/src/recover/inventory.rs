//! The files of a log's directory.
//!
//! **Owns:** [`Inventory`], and what derived files tell of segments that are not there. **Does not know:** what the files hold.
//! **Invariants:** a foreign file is an error that names it, before anything is changed, unless an operating system creates
//! files of that name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use leftfold_model::Position;

use super::error::OpenError;
use crate::{
    cache::FileCache,
    disk::{Disk, FileKind, FileName},
    error::StorageError,
    index::IndexFile,
    record::header::SegmentHeader,
    segment::locations,
};

/// The files of a log, sorted by what they are.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// The highest generation of each segment, by first position.
    pub(crate) segments: BTreeMap<Position, u32>,
    /// The locations files.
    pub(crate) locations: BTreeSet<FileName>,
    /// Ranges of the index files.
    pub(crate) indexes: Vec<(Position, Position)>,
    /// Whether there is a clean-stop marker.
    pub(crate) marker: bool,
    /// Files that are not needed: half-written ones, a preallocated segment, replaced generations.
    pub(crate) leftovers: Vec<FileName>,
}

/// Names that operating systems and file servers put into directories by themselves.
const SYSTEM_NAMES: [&str; 48] = [
    "lost+found",
    "lost_found",
    ".DS_Store",
    ".fseventsd",
    ".Spotlight-V100",
    ".TemporaryItems",
    ".Trashes",
    ".snapshot",
    ".snapshots",
    ".zfs",
    ".directory",
    "@eaDir",
    "Thumbs.db",
    "desktop.ini",
    "System Volume Information",
    "$RECYCLE.BIN",
    "#recycle",
    "#snapshot",
    "@Recycle",
    "@Recently-Snapshot",
    ".AppleDouble",
    ".apdisk",
    ".metadata_never_index",
    ".fscrypt",
    "aquota.user",
    "aquota.group",
    "quota.user",
    "quota.group",
    ".snap",
    ".sujournal",
    "~snapshot",
    ".nilfs",
    ".reiserfs_priv",
    ".trashcan",
    ".Trash",
    ".DocumentRevisions-V100",
    ".VolumeIcon.icns",
    ".localized",
    ".com.apple.timemachine.donotpresent",
    "$Recycle.Bin",
    "ehthumbs.db",
    "IndexerVolumeGuid",
    "WPSettings.dat",
    "@tmp",
    ".glusterfs",
    ".lustre",
    ".@__thumb",
    "core",
];
/// What such names begin with if they go on in any way: files that were removed while they are open, on NFS, FUSE and SMB;
/// attributes of macOS; trash; what union file systems note; memory dumps of a program that runs in the directory.
const SYSTEM_PREFIXES: [&str; 7] = [
    ".nfs",
    ".fuse_hidden",
    ".smb",
    "._",
    ".Trash-",
    ".wh..wh.",
    "core.",
];

/// Whether a name is not a log's, and nothing that a person put there either.
fn is_of_system(name: &str) -> bool {
    SYSTEM_NAMES.contains(&name)
        || SYSTEM_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// A segment that followed the newest one and is not there.
#[derive(Debug)]
pub(crate) struct LostSuccessor {
    /// Its first position.
    next: Position,
    /// The last position that the log is known to have held; the one before `next`, if nothing tells of events in the segment.
    pub(crate) last: Position,
    /// The file that shows it.
    pub(crate) shown_by: FileName,
}

impl LostSuccessor {
    /// The file that is missing.
    pub(crate) fn name(&self) -> FileName {
        FileName::of(FileKind::Segment {
            first: self.next,
            generation: 0,
        })
    }

    /// Whether it is known to have held events.
    pub(crate) fn had_events(&self) -> bool {
        self.last >= self.next
    }

    pub(crate) fn error(&self) -> StorageError {
        let (shown_by, last) = (&self.shown_by, self.last);
        let what = if self.had_events() {
            format!(
                "the segment is missing: {shown_by} shows that the log held events up to position {last}"
            )
        } else {
            format!("the segment is missing: {shown_by} shows that it followed position {last}")
        };
        StorageError::corrupt(&self.name(), 0, what)
    }
}

/// A derived file, unless it is damaged.
fn is_sound<T>(opened: Result<T, StorageError>) -> Result<Option<T>, StorageError> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.is_corruption() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Inventory {
    /// Whether there is nothing of a log.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
            && self.indexes.is_empty()
            && self.locations.is_empty()
            && !self.marker
    }

    /// The locations files of one segment, of whatever generation.
    pub(crate) fn locations_of(&self, segment: Position) -> impl Iterator<Item = &FileName> {
        let is_of = move |name: &&FileName| matches!(name.kind(), FileKind::Locations { first, .. } if first == segment);
        self.locations.iter().filter(is_of)
    }

    /// What shows that the log went on behind its newest segment, which ends before `next`: a sound index file of this log that
    /// holds the newest segment's last event or a later one, or the newest segment's locations.
    ///
    /// Both are written when a segment is sealed, and the name of the segment that follows is durable before that. So a log with
    /// such a file has lost segments: no power cut takes a segment and leaves what is derived from the one before it.
    pub(crate) fn successor(
        &self,
        files: &Arc<FileCache>,
        newest: &SegmentHeader,
        next: Position,
    ) -> Result<Option<LostSuccessor>, StorageError> {
        let ends_later = |last: Position| last >= newest.first && last.next() >= next;
        let mut ahead: Vec<_> = self
            .indexes
            .iter()
            .filter(|(_, last)| ends_later(*last))
            .collect();
        ahead.sort_by_key(|(_, last)| std::cmp::Reverse(*last));
        for &&(first, last) in &ahead {
            if is_sound(IndexFile::open(files, newest.log, (first, last)))?.is_some() {
                let shown_by = FileName::of(FileKind::Index { first, last });
                return Ok(Some(LostSuccessor {
                    next,
                    last,
                    shown_by,
                }));
            }
        }
        let kind = locations::kind(newest.first, newest.generation, newest.erased);
        let shown_by = FileName::of(kind);
        if !self.locations.contains(&shown_by) {
            return Ok(None);
        }
        let sealed = is_sound(locations::open(files, newest))?;
        let events = next.get().saturating_sub(newest.first.get());
        let is_whole = sealed.is_some_and(|sealed| u64::from(sealed.count) == events);
        Ok(is_whole.then_some(LostSuccessor {
            next,
            last: next.previous(),
            shown_by,
        }))
    }

    pub(crate) fn of(disk: &dyn Disk) -> Result<Self, OpenError> {
        let mut inventory = Self::default();
        let mut generations: BTreeMap<Position, BTreeSet<u32>> = BTreeMap::new();
        for name in disk
            .list()
            .map_err(|e| StorageError::directory("list", e))?
        {
            let name = match name {
                Ok(name) => name,
                Err(name) if is_of_system(&name) => continue,
                Err(name) => return Err(OpenError::ForeignFile { name }),
            };
            match name.kind() {
                _ if name.is_temporary() => inventory.leftovers.push(name),
                FileKind::Spare => inventory.leftovers.push(name),
                FileKind::Segment { first, generation } => {
                    generations.entry(first).or_default().insert(generation);
                }
                FileKind::Locations { .. } => {
                    inventory.locations.insert(name);
                }
                FileKind::Index { first, last } => inventory.indexes.push((first, last)),
                FileKind::CleanStop => inventory.marker = true,
                FileKind::Lock
                | FileKind::TornTail { .. }
                | FileKind::Snapshots
                | FileKind::Consumers => {}
            }
        }
        for (first, mut all) in generations {
            if let Some(generation) = all.pop_last() {
                inventory.segments.insert(first, generation);
            }
            let replaced = |generation| FileName::of(FileKind::Segment { first, generation });
            inventory.leftovers.extend(all.into_iter().map(replaced));
        }
        inventory
            .indexes
            .sort_by_key(|&(first, last)| (first, std::cmp::Reverse(last)));
        Ok(inventory)
    }
}
