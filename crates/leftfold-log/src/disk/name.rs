//! The names of a log's files.
//!
//! **Owns:** [`FileName`]: how a name is written and recognised. **Does not know:** what the files hold.
//! **Invariants:** a name is made of numbers in hexadecimal and a fixed suffix; `parse(name.to_string())` gives
//! the name back; any other text is a foreign file.

use std::fmt;

use leftfold_model::Position;

/// The name of one file of a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileName {
    kind: FileKind,
    temporary: bool,
}

/// What a file of a log is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum FileKind {
    /// Empty; locked while the log is open.
    Lock,
    /// The clean-stop marker: where the log ended when it was last closed cleanly.
    CleanStop,
    /// Events, from position `first` on. A higher generation replaces a lower one of the same `first`.
    Segment {
        /// Position of the first event the segment can hold.
        first: Position,
        /// How often scavenging rewrote the segment.
        generation: u32,
    },
    /// Where in a sealed segment each event lies.
    Locations {
        /// As in the segment.
        first: Position,
        /// That of a segment with erased events; 0 for others.
        generation: u32,
    },
    /// Index of the events from `first` to `last`.
    Index {
        /// Position of the first event covered.
        first: Position,
        /// Position of the last event covered.
        last: Position,
    },
    /// Bytes that recovery truncated from the end of a segment, kept for inspection.
    TornTail {
        /// Equal to that of the segment they were truncated from.
        first: Position,
        /// Equal to that of the segment they were truncated from.
        generation: u32,
    },
    /// The preallocated segment: a zero-filled file.
    Spare,
    /// The store's file of snapshots. The log neither reads nor writes it.
    Snapshots,
    /// The store's file of consumers. The log neither reads nor writes it.
    Consumers,
}

impl FileName {
    /// Creates the name of a finished file.
    #[must_use]
    pub const fn of(kind: FileKind) -> Self {
        Self {
            kind,
            temporary: false,
        }
    }

    /// Creates the temporary name of a file that is being written; such files are removed at open.
    #[must_use]
    pub const fn temporary(kind: FileKind) -> Self {
        Self {
            kind,
            temporary: true,
        }
    }

    /// Returns the kind of the file.
    #[must_use]
    pub const fn kind(&self) -> FileKind {
        self.kind
    }

    /// Returns whether the file was not finished.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// Whether the file holds nothing that was ever used.
    pub(crate) const fn is_unneeded(&self) -> bool {
        self.temporary || matches!(self.kind, FileKind::Spare)
    }

    /// Parses a name; `None` for a foreign one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (stem, temporary) = match text.strip_suffix(".tmp") {
            Some(stem) => (stem, true),
            None => (text, false),
        };
        let kind = Self::parse_kind(stem)?;
        let name = Self { kind, temporary };
        // Only the one spelling that we write is ours: upper-case digits or missing zeros are foreign.
        (name.to_string() == text).then_some(name)
    }

    fn parse_kind(stem: &str) -> Option<FileKind> {
        match stem {
            "lock" => return Some(FileKind::Lock),
            "clean-stop" => return Some(FileKind::CleanStop),
            "spare" => return Some(FileKind::Spare),
            "snapshots" => return Some(FileKind::Snapshots),
            "consumers" => return Some(FileKind::Consumers),
            _ => {}
        }
        let (numbers, suffix) = stem.rsplit_once('.')?;
        let (left, right) = match numbers.split_once('-') {
            Some((left, right)) => (left, Some(right)),
            None => (numbers, None),
        };
        let first = position(left)?;
        match (suffix, right) {
            ("seg", Some(right)) => Some(FileKind::Segment {
                first,
                generation: u32::from_str_radix(right, 16).ok()?,
            }),
            ("cut", Some(right)) => Some(FileKind::TornTail {
                first,
                generation: u32::from_str_radix(right, 16).ok()?,
            }),
            ("idx", Some(right)) => Some(FileKind::Index {
                first,
                last: position(right)?,
            }),
            ("loc", None) => Some(FileKind::Locations {
                first,
                generation: 0,
            }),
            ("loc", Some(right)) => Some(FileKind::Locations {
                first,
                generation: u32::from_str_radix(right, 16).ok()?,
            }),
            _ => None,
        }
    }
}

fn position(hex: &str) -> Option<Position> {
    u64::from_str_radix(hex, 16).ok().map(Position::new)
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FileKind::Lock => f.write_str("lock")?,
            FileKind::CleanStop => f.write_str("clean-stop")?,
            FileKind::Spare => f.write_str("spare")?,
            FileKind::Snapshots => f.write_str("snapshots")?,
            FileKind::Consumers => f.write_str("consumers")?,
            FileKind::Segment { first, generation } => {
                write!(f, "{:016x}-{generation:08x}.seg", first.get())?;
            }
            FileKind::TornTail { first, generation } => {
                write!(f, "{:016x}-{generation:08x}.cut", first.get())?;
            }
            FileKind::Index { first, last } => {
                write!(f, "{:016x}-{:016x}.idx", first.get(), last.get())?
            }
            FileKind::Locations {
                first,
                generation: 0,
            } => write!(f, "{:016x}.loc", first.get())?,
            FileKind::Locations { first, generation } => {
                write!(f, "{:016x}-{generation:08x}.loc", first.get())?;
            }
        }
        f.write_str(if self.temporary { ".tmp" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_recognised_as_what_it_is() {
        let (first, last) = (Position::new(0x1f), Position::new(u64::MAX));
        let kinds = [
            FileKind::Lock,
            FileKind::CleanStop,
            FileKind::Spare,
            FileKind::Snapshots,
            FileKind::Consumers,
            FileKind::Segment {
                first,
                generation: 7,
            },
            FileKind::TornTail {
                first,
                generation: 0,
            },
            FileKind::Index { first, last },
            FileKind::Locations {
                first,
                generation: 0,
            },
            FileKind::Locations {
                first,
                generation: 3,
            },
        ];
        for kind in kinds {
            for name in [FileName::of(kind), FileName::temporary(kind)] {
                assert_eq!(FileName::parse(&name.to_string()), Some(name));
            }
        }
    }

    #[test]
    fn other_spellings_are_foreign() {
        for text in [
            "1f-7.seg",
            "000000000000001F.loc",
            "000000000000001f-00000000.loc",
            "notes.txt",
            "",
            "../lock",
            "lock.tmp.tmp",
        ] {
            assert_eq!(FileName::parse(text), None, "{text}");
        }
    }
}
