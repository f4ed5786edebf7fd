//! Exact exports: every position of a log as a line, with checksums (docs/jsonl.md).
//!
//! **Owns:** the lines of export format 2. **Does not know:** files, stores.
//! **Invariants:** the same entries give the same bytes; a line that was changed, left out, repeated or moved fails its
//! checksum; an export without its last line is not complete.

use leftfold_model::{EventId, EventType, Position, RecordedEvent, Revision, StreamName, Tag};
use leftfold_store::{ErasedEvent, LogEntry};
use serde::{Deserialize, Serialize};

use super::{Bounded, EventInput, EventJsonError, EventOutput, Layout, TAGS_PER_EVENT_MAX};

/// The format that is written.
const FORMAT: u32 = 2;
/// What the first line begins with.
const HEADER_START: &str = "{\"leftfold_export\":";
/// What the last line begins with.
const END_START: &str = "{\"end\":";
/// What stands behind the position of an erased event.
const ERASED_FIELD: &str = "\"erased\":true,";
/// What stands between a line's fields and its checksum.
const CHECKSUM_FIELD: &str = ",\"crc32c\":\"";
/// Bytes of the checksum field and of the end of the line's object.
const CHECKSUM_BYTES: usize = CHECKSUM_FIELD.len() + 8 + 2;

/// Why a line is not part of an exact export.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The export is of a later version of this program.
    #[error("export format unknown: {0}; expected {FORMAT}, or lines of events without a header")]
    UnknownFormat(u32),
    /// The line does not end with a checksum.
    #[error("checksum missing at the end of the line")]
    NoChecksum,
    /// The checksum is that of another line, or of other lines before this one.
    #[error(
        "checksum different: {found:08x}; expected {expected:08x}. This line or one before it was changed, left out or moved"
    )]
    Checksum {
        /// The checksum of the line.
        found: u32,
        /// The checksum of what was read.
        expected: u32,
    },
    /// The line is not an entry.
    #[error("not an entry of an export")]
    Json(#[from] serde_json::Error),
    /// An entry that is not an event.
    #[error(transparent)]
    Event(#[from] EventJsonError),
    /// A field that exact exports have is missing.
    #[error("{0} missing")]
    Missing(&'static str),
    /// Something stands behind the last line.
    #[error("line behind the end of the export")]
    BehindEnd,
    /// The last line counts other entries than there are.
    #[error("export ends with position {found}; expected {expected}")]
    Count {
        /// The position that the last line names.
        found: u64,
        /// The position of the last entry.
        expected: u64,
    },
    /// The last line is missing.
    #[error("export is not complete: its last line is missing; it was cut short, export it again")]
    Incomplete,
}

#[derive(Serialize, Deserialize)]
struct Header {
    leftfold_export: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    /// The head of the log.
    end: u64,
}

#[derive(Serialize)]
struct ErasedOutput<'a> {
    position: u64,
    erased: bool,
    stream: &'a str,
    revision: u64,
    #[serde(rename = "type")]
    event_type: &'a str,
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<&'a str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErasedInput {
    position: u64,
    #[serde(rename = "erased")]
    _erased: bool,
    stream: String,
    revision: u64,
    #[serde(rename = "type")]
    event_type: String,
    id: String,
    #[serde(default)]
    tags: Bounded<String, TAGS_PER_EVENT_MAX>,
}

/// Writes the lines of an exact export, without line breaks.
#[derive(Debug, Default)]
pub struct ExportWriter {
    checksum: u32,
    head: u64,
}

impl ExportWriter {
    /// Returns the first line.
    ///
    /// # Errors
    /// None that can be brought about; the type is that of the library that writes JSON.
    pub fn header(&mut self) -> Result<String, serde_json::Error> {
        let header = Header {
            leftfold_export: FORMAT,
        };
        Ok(self.seal(serde_json::to_string(&header)?))
    }

    /// Returns the line of the next entry.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn entry(&mut self, entry: &LogEntry) -> Result<String, serde_json::Error> {
        self.head = entry.position().get();
        let line = match entry {
            LogEntry::Event(event) => serde_json::to_string(&EventOutput {
                position: Some(event.position.get()),
                revision: Some(event.revision.get()),
                ..EventOutput::within(event, Layout::Line)
            }),
            LogEntry::Erased(erased) => serde_json::to_string(&ErasedOutput {
                position: erased.position.get(),
                erased: true,
                stream: erased.stream.as_str(),
                revision: erased.revision.get(),
                event_type: erased.event_type.as_str(),
                id: erased.id.to_string(),
                tags: erased.tags.iter().map(Tag::as_str).collect(),
            }),
        };
        Ok(self.seal(line?))
    }

    /// Returns the last line.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn end(mut self) -> Result<String, serde_json::Error> {
        let end = End { end: self.head };
        Ok(self.seal(serde_json::to_string(&end)?))
    }

    /// Adds the checksum of all lines so far to an object.
    fn seal(&mut self, mut line: String) -> String {
        // The brace goes behind the checksum.
        line.pop();
        self.checksum = crc32c::crc32c_append(self.checksum, line.as_bytes());
        line.push_str(&format!("{CHECKSUM_FIELD}{:08x}\"}}", self.checksum));
        line
    }
}

/// Reads the lines of an exact export, behind its first line.
#[derive(Debug)]
pub struct ExportReader {
    checksum: u32,
    head: u64,
    ended: bool,
}

impl ExportReader {
    /// Returns the reader if this first line begins an exact export; `None` if it is any other line.
    ///
    /// # Errors
    /// [`ExportError`] if it begins an export that this version cannot read, or is damaged.
    pub fn begin(line: &str) -> Result<Option<Self>, ExportError> {
        if !line.starts_with(HEADER_START) {
            return Ok(None);
        }
        let format = serde_json::from_str::<Header>(line)?.leftfold_export;
        if format != FORMAT {
            return Err(ExportError::UnknownFormat(format));
        }
        let mut reader = Self {
            checksum: 0,
            head: 0,
            ended: false,
        };
        reader.open(line)?;
        Ok(Some(reader))
    }

    /// Reads a line; `None` for the last one.
    ///
    /// # Errors
    /// [`ExportError`]: what is wrong with it.
    pub fn entry(&mut self, line: &str) -> Result<Option<LogEntry>, ExportError> {
        if self.ended {
            return Err(ExportError::BehindEnd);
        }
        let line = self.open(line)?;
        if line.starts_with(END_START) {
            let found = serde_json::from_str::<End>(&line)?.end;
            self.ended = true;
            return match found == self.head {
                true => Ok(None),
                false => Err(ExportError::Count {
                    found,
                    expected: self.head,
                }),
            };
        }
        let behind_position = line.split_once(',').map_or("", |(_, rest)| rest);
        let entry = match behind_position.starts_with(ERASED_FIELD) {
            true => LogEntry::Erased(erased(&line)?),
            false => LogEntry::Event(event(&line)?),
        };
        self.head = entry.position().get();
        Ok(Some(entry))
    }

    /// Checks that the last line was read.
    ///
    /// # Errors
    /// [`ExportError::Incomplete`].
    pub fn finish(self) -> Result<(), ExportError> {
        match self.ended {
            true => Ok(()),
            false => Err(ExportError::Incomplete),
        }
    }

    /// Checks the checksum of a line, and returns the line without it.
    fn open(&mut self, line: &str) -> Result<String, ExportError> {
        let start = line.len().checked_sub(CHECKSUM_BYTES);
        let split = start.and_then(|start| line.split_at_checked(start));
        let (body, end) = split.ok_or(ExportError::NoChecksum)?;
        let found = end
            .strip_prefix(CHECKSUM_FIELD)
            .and_then(|end| end.strip_suffix("\"}"))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or(ExportError::NoChecksum)?;
        let expected = crc32c::crc32c_append(self.checksum, body.as_bytes());
        if found != expected {
            return Err(ExportError::Checksum { found, expected });
        }
        self.checksum = expected;
        Ok(format!("{body}}}"))
    }
}

fn event(line: &str) -> Result<RecordedEvent, ExportError> {
    let mut given: EventInput<'_> = serde_json::from_str(line)?;
    let places = (given.position, given.revision, given.stream.take());
    let (position, revision, stream) = match places {
        (Some(position), Some(revision), Some(stream)) => (position, revision, stream),
        (None, ..) => return Err(ExportError::Missing("position")),
        (_, None, _) => return Err(ExportError::Missing("revision")),
        (.., None) => return Err(EventJsonError::NoStream.into()),
    };
    let nil = EventId::from_bytes([0; 16]);
    let event = given.into_event(|| nil)?;
    if event.id().is_nil() {
        return Err(ExportError::Missing("id"));
    }
    let time = event.time().ok_or(ExportError::Missing("time"))?;
    Ok(RecordedEvent {
        position: Position::new(position),
        stream: StreamName::new(stream).map_err(refused("stream"))?,
        revision: Revision::new(revision),
        id: event.id(),
        event_type: event.event_type().clone(),
        content_type: event.content_type(),
        data: event.data().clone(),
        metadata: event.metadata().clone(),
        tags: event.tags().to_vec(),
        time,
    })
}

fn erased(line: &str) -> Result<ErasedEvent, ExportError> {
    let given: ErasedInput = serde_json::from_str(line)?;
    let tags = given.tags.all("event", "tags", "TAGS_PER_EVENT_MAX");
    let tags = tags.map_err(refused("tags"))?.into_iter().map(Tag::new);
    let id: EventId = given.id.parse().map_err(refused("id"))?;
    let event_type = EventType::new(given.event_type).map_err(refused("type"))?;
    Ok(ErasedEvent {
        position: Position::new(given.position),
        stream: StreamName::new(given.stream).map_err(refused("stream"))?,
        revision: Revision::new(given.revision),
        id,
        event_type,
        tags: tags.collect::<Result<_, _>>().map_err(refused("tags"))?,
    })
}

fn refused(field: &'static str) -> impl Fn(leftfold_model::ModelError) -> EventJsonError {
    move |error| EventJsonError::Model { field, error }
}

#[cfg(test)]
mod tests {
    use leftfold_model::{Bytes, ContentType, Timestamp};

    use super::*;

    fn entries() -> Vec<LogEntry> {
        let event = |position: u64, content_type, data: &'static [u8], micros| {
            LogEntry::Event(RecordedEvent {
                position: Position::new(position),
                stream: StreamName::new("a-\0\"1").unwrap(),
                revision: Revision::new(position + 6),
                id: EventId::from_bytes([u8::try_from(position).unwrap(); 16]),
                event_type: EventType::new("T\u{2028}").unwrap(),
                content_type,
                data: Bytes::from_static(data),
                metadata: Bytes::from_static(b"null"),
                tags: vec![Tag::new("q").unwrap()],
                time: Timestamp::from_micros(micros),
            })
        };
        let first = event(1, ContentType::Json, b"{ \"x\" : 1.50 }", 0);
        vec![
            first.clone(),
            LogEntry::Erased(ErasedEvent {
                position: Position::new(2),
                ..first.erased()
            }),
            event(3, ContentType::Json, b"", 253_402_300_799_999_999),
            event(4, ContentType::Cbor, b"\xff", u64::MAX),
            event(5, ContentType::Json, b"{\n}", 1),
        ]
    }

    fn lines() -> Vec<String> {
        let mut writer = ExportWriter::default();
        let mut lines = vec![writer.header().unwrap()];
        lines.extend(entries().iter().map(|entry| writer.entry(entry).unwrap()));
        lines.push(writer.end().unwrap());
        lines
    }

    fn read(lines: &[String]) -> Result<Vec<LogEntry>, ExportError> {
        let (first, rest) = lines.split_first().unwrap();
        let mut reader = ExportReader::begin(first)?.unwrap();
        let mut entries = Vec::new();
        for line in rest {
            entries.extend(reader.entry(line)?);
        }
        reader.finish()?;
        Ok(entries)
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        assert!(lines().iter().all(|line| !line.contains('\n')));
        assert_eq!(read(&lines()).unwrap(), entries());
    }

    #[test]
    fn a_line_that_is_changed_missing_repeated_or_moved_is_refused() {
        let whole = lines();
        for at in 1..whole.len() {
            let mut missing = whole.clone();
            missing.remove(at);
            assert!(read(&missing).is_err(), "without line {at}");
            let mut repeated = whole.clone();
            repeated.insert(at, whole[at].clone());
            assert!(read(&repeated).is_err(), "line {at} twice");
            let mut moved = whole.clone();
            moved.swap(at - 1, at);
            assert!(
                ExportReader::begin(&moved[0]).is_ok_and(|begun| begun.is_none())
                    || read(&moved).is_err()
            );
            for byte in 0..whole[at].len() {
                let mut changed = whole[at].clone().into_bytes();
                changed[byte] ^= 1;
                if let Ok(changed) = String::from_utf8(changed) {
                    let mut lines = whole.clone();
                    lines[at] = changed;
                    assert!(read(&lines).is_err(), "byte {byte} of line {at}");
                }
            }
        }
    }

    #[test]
    fn a_later_format_is_refused_by_its_number() {
        let refused = ExportReader::begin("{\"leftfold_export\":3,\"crc32c\":\"00000000\"}");
        let refused = refused.unwrap_err().to_string();
        assert!(refused.starts_with("export format unknown: 3"), "{refused}");
        assert!(ExportReader::begin("{\"stream\":\"s\"}").unwrap().is_none());
    }
}
