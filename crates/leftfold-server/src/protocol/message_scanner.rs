//! Scanning an encoded message of Protocol Buffers before it is decoded.
//!
//! **Owns:** [`MessageScanner`], [`Field`]. **Does not know:** which messages exist; `message_shapes` does.
//! **Invariants:** an element of a repeated field is counted before memory is allocated for it. A message that the scanner
//! cannot read is rejected, so that nothing is decoded that was not counted.
//!
//! An empty element takes two bytes on the wire and a hundred in memory: the size of a message does not bound its decoded form.
//!
//! Source: the encoding of Protocol Buffers.

use std::error::Error;

use crate::connection::InspectMessage;

/// Messages within messages, at most; the decoder has the same bound.
const DEPTH_MAX: usize = 100;
/// Memory that the elements of one message may take beside their bytes.
const DECODED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How far above its limit a count may be. Up to there the message is decoded, and answered as its protocol answers it.
const SLACK: usize = 2;
/// Bytes of a varint.
const VARINT_BYTES_MAX: u32 = 10;

/// A field whose elements take memory, or that holds such fields.
#[derive(Debug)]
pub(crate) struct Field {
    pub(super) number: u64,
    pub(super) name: &'static str,
    /// Memory that one element takes when it is decoded.
    pub(super) decoded_bytes: usize,
    /// Elements in one message, and the name of that limit.
    pub(super) elements_max: usize,
    pub(super) limit: &'static str,
    /// The fields of an element that matter.
    pub(super) fields: &'static [Self],
}

/// Why a message is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScanError {
    /// A repeated field has too many elements.
    #[error("too many {name} in one message: more than {max} ({limit})")]
    TooMany {
        /// The field.
        name: &'static str,
        /// Elements allowed.
        max: usize,
        /// The name of the limit.
        limit: &'static str,
    },
    /// All elements together take too much memory.
    #[error("message too large when decoded: elements take more than {DECODED_BYTES_MAX} bytes")]
    TooLarge,
    /// It is no message of Protocol Buffers that this server reads.
    #[error("invalid message: {0}")]
    Malformed(&'static str),
}

/// A message that is being looked at, bytes at a time.
#[derive(Debug)]
pub(crate) struct MessageScanner {
    shape: &'static [Field],
    /// The message and those it is in, outermost first.
    levels: Vec<Level>,
    /// Bytes seen.
    position: usize,
    decoded_bytes: usize,
    state: State,
}

#[derive(Debug)]
struct Level {
    fields: &'static [Field],
    /// Elements of each of them.
    counts: Vec<usize>,
    /// Where it ends; the outermost one ends with the data.
    end: usize,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum State {
    Key(Varint),
    Value(Varint),
    Length(Varint, u64),
    Skip(usize),
}

/// A number of which some bytes came.
#[derive(Debug, Clone, Copy, Default)]
struct Varint {
    value: u64,
    bytes: u32,
}

impl Varint {
    /// The number, with its last byte.
    fn take(&mut self, byte: u8) -> Result<Option<u64>, ScanError> {
        if self.bytes == VARINT_BYTES_MAX {
            return Err(ScanError::Malformed("a number is too long"));
        }
        let shifted = u64::from(byte & 0x7f).checked_shl(7 * self.bytes);
        self.value |= shifted.unwrap_or(0);
        self.bytes += 1;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

impl MessageScanner {
    /// A scanner for messages with these fields.
    pub(crate) fn new(shape: &'static [Field]) -> Self {
        let mut scanner = Self {
            shape,
            levels: Vec::new(),
            position: 0,
            decoded_bytes: 0,
            state: State::Key(Varint::default()),
        };
        scanner.begin();
        scanner
    }

    fn begin(&mut self) {
        self.position = 0;
        self.decoded_bytes = 0;
        self.state = State::Key(Varint::default());
        self.levels.clear();
        self.enter(self.shape, usize::MAX);
    }

    fn enter(&mut self, fields: &'static [Field], end: usize) {
        self.levels.push(Level {
            fields,
            counts: vec![0; fields.len()],
            end,
        });
    }

    /// Takes the next bytes, and returns how much memory their elements take.
    pub(super) fn scan(&mut self, mut data: &[u8]) -> Result<usize, ScanError> {
        let before = self.decoded_bytes;
        while let Some((&byte, rest)) = data.split_first() {
            if let State::Skip(missing) = self.state {
                let here = missing.min(data.len());
                self.position += here;
                data = data.get(here..).unwrap_or_default();
                self.state = match missing - here {
                    0 => State::Key(Varint::default()),
                    missing => State::Skip(missing),
                };
            } else {
                data = rest;
                self.position += 1;
                self.state = self.step(byte)?;
            }
            self.leave()?;
        }
        Ok(self.decoded_bytes - before)
    }

    fn step(&mut self, byte: u8) -> Result<State, ScanError> {
        Ok(match self.state {
            State::Key(mut key) => match key.take(byte)? {
                None => State::Key(key),
                Some(key) => match key & 7 {
                    0 => State::Value(Varint::default()),
                    1 => State::Skip(8),
                    2 => State::Length(Varint::default(), key >> 3),
                    5 => State::Skip(4),
                    _ => {
                        return Err(ScanError::Malformed(
                            "a field has a wire type that is not used",
                        ));
                    }
                },
            },
            State::Value(mut value) => match value.take(byte)? {
                None => State::Value(value),
                Some(_) => State::Key(Varint::default()),
            },
            State::Length(mut length, field) => match length.take(byte)? {
                None => State::Length(length, field),
                Some(length) => {
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    self.element(field, length)?
                }
            },
            State::Skip(missing) => State::Skip(missing),
        })
    }

    /// Counts an element, and goes into it if there is something to count.
    fn element(&mut self, number: u64, length: usize) -> Result<State, ScanError> {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else {
            return Err(ScanError::Malformed("a message is closed too often"));
        };
        let end = self
            .position
            .checked_add(length)
            .filter(|end| *end <= level.end);
        let end = end.ok_or(ScanError::Malformed("a field is longer than its message"))?;
        let fields = level.fields.iter().zip(&mut level.counts);
        let Some((field, count)) = fields.into_iter().find(|(field, _)| field.number == number)
        else {
            return Ok(skip(length));
        };
        *count += 1;
        if *count > field.elements_max.saturating_mul(SLACK) {
            return Err(ScanError::TooMany {
                name: field.name,
                max: field.elements_max,
                limit: field.limit,
            });
        }
        self.decoded_bytes += field.decoded_bytes;
        if self.decoded_bytes > DECODED_BYTES_MAX {
            return Err(ScanError::TooLarge);
        }
        if field.fields.is_empty() || length == 0 {
            return Ok(skip(length));
        }
        if depth == DEPTH_MAX {
            return Err(ScanError::Malformed(
                "messages within messages are too deep",
            ));
        }
        self.enter(field.fields, end);
        Ok(State::Key(Varint::default()))
    }

    /// Leaves the messages that end here.
    fn leave(&mut self) -> Result<(), ScanError> {
        while self
            .levels
            .last()
            .is_some_and(|level| self.position >= level.end)
        {
            match self.state {
                State::Key(Varint { bytes: 0, .. }) => drop(self.levels.pop()),
                _ => return Err(ScanError::Malformed("a message ends within a field")),
            }
        }
        Ok(())
    }
}

fn skip(length: usize) -> State {
    match length {
        0 => State::Key(Varint::default()),
        length => State::Skip(length),
    }
}

impl InspectMessage for MessageScanner {
    fn inspect(&mut self, data: &[u8]) -> Result<usize, Box<dyn Error + Send + Sync>> {
        Ok(self.scan(data)?)
    }

    fn reset(&mut self) {
        self.begin();
    }
}

#[cfg(test)]
mod tests {
    use leftfold_proto::{
        leftfold::v1::{AppendRequest, NewEvent, Write},
        prost::Message,
    };

    use super::*;
    use crate::protocol::message_shapes::APPEND;

    fn append(events: usize, tags: usize) -> Vec<u8> {
        let event = NewEvent {
            data: vec![0xff; 10].into(),
            tags: vec!["t".into(); tags],
            ..NewEvent::default()
        };
        let write = Write {
            stream: "a".into(),
            events: vec![event; events],
            ..Write::default()
        };
        let append = AppendRequest {
            writes: vec![write],
            ..AppendRequest::default()
        };
        append.encode_to_vec()
    }

    #[test]
    fn elements_are_counted_however_a_message_is_cut() {
        let bytes = append(3, 2);
        let mut whole = MessageScanner::new(APPEND);
        let taken = whole.scan(&bytes).unwrap();
        assert!(taken > 3 * size_of::<NewEvent>(), "{taken}");
        for size in 1..bytes.len() {
            let mut scanner = MessageScanner::new(APPEND);
            let pieces = bytes.chunks(size).map(|piece| scanner.scan(piece).unwrap());
            assert_eq!(pieces.sum::<usize>(), taken, "pieces of {size}");
            assert_eq!(scanner.levels.len(), 1);
        }
    }

    #[test]
    fn what_is_too_many_is_named_before_it_is_decoded() {
        let error = MessageScanner::new(APPEND)
            .scan(&append(20_001, 0))
            .unwrap_err();
        assert!(error.to_string().contains("APPEND_EVENTS_MAX"), "{error}");
        let error = MessageScanner::new(APPEND)
            .scan(&append(1, 129))
            .unwrap_err();
        assert!(error.to_string().contains("TAGS_PER_EVENT_MAX"), "{error}");
        MessageScanner::new(APPEND)
            .scan(&append(10_000, 1))
            .unwrap();
    }

    #[test]
    fn empty_elements_within_empty_elements_are_bounded_together() {
        // Each write has many empty events; no single count is over its bound.
        let write = [[0x1a, 0x00]; 9_000].concat();
        let mut bytes = Vec::new();
        for _ in 0..200 {
            bytes.push(0x0a);
            leftfold_proto::prost::encoding::encode_varint(write.len() as u64, &mut bytes);
            bytes.extend_from_slice(&write);
        }
        assert_eq!(
            MessageScanner::new(APPEND).scan(&bytes),
            Err(ScanError::TooLarge)
        );
    }

    #[test]
    fn what_is_no_message_is_an_error_and_never_a_panic() {
        for bytes in [
            &[0x0a, 0x05, 0x1a, 0x09][..],
            &[0x0b],
            &[0x0c],
            &[0xff; 12],
            &[0x0a, 0x01, 0x1a],
        ] {
            let error = MessageScanner::new(APPEND).scan(bytes).unwrap_err();
            assert!(matches!(error, ScanError::Malformed(_)), "{bytes:?}");
        }
        let seed = 0x5eed_5ca1_0b5e_7e57_u64;
        println!("seed {seed:#x}");
        let mut state = seed;
        for _ in 0..2_000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[0]
                })
                .collect();
            let scanned = MessageScanner::new(APPEND).scan(&bytes);
            if scanned.is_err() {
                continue;
            }
            // What the scanner takes for too little, the decoder never takes for more.
            if let Ok(decoded) = AppendRequest::decode(&*bytes) {
                let events = decoded.writes.iter().map(|write| write.events.len());
                assert!(events.sum::<usize>() * size_of::<NewEvent>() <= scanned.unwrap());
            }
        }
    }
}
