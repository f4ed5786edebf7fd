//! Decompression of input files, recognised by their first bytes.
//!
//! **Owns:** [`Head`]. **Does not know:** what the bytes mean.
//! **Invariants:** input is decompressed as it is read, in bounded memory; files of several gzip members or zstd frames are
//! read to their end, skippable frames of zstd and zeros behind gzip members left out; a truncated file is an error, not an
//! end, and so is content that does not match the checksum behind it.

use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};

use flate2::bufread::GzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Bytes of the header of a zstd frame, at most.
const ZSTD_HEADER_BYTES: usize = 18;
/// Memory that a frame may ask for: what the program `zstd` allows unless told otherwise, and `zstd --long` uses.
const ZSTD_WINDOW_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The first bytes of an input, which tell how it is compressed.
pub(super) struct Head(Vec<u8>);

impl Head {
    /// Reads the first bytes.
    pub(super) fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut head = Vec::with_capacity(ZSTD.len());
        Read::take(input, ZSTD.len() as u64).read_to_end(&mut head)?;
        Ok(Self(head))
    }

    /// Whether the input is not compressed.
    pub(super) fn is_plain(&self) -> bool {
        !self.is_gzip() && !self.is_zstd()
    }

    fn is_gzip(&self) -> bool {
        self.0.starts_with(GZIP)
    }

    fn is_zstd(&self) -> bool {
        self.0.starts_with(ZSTD) || is_skippable(&self.0)
    }

    /// Returns the whole input, whose rest is `rest`, as it was before these bytes were read.
    pub(super) fn unread<R: BufRead>(self, rest: R) -> impl BufRead + use<R> {
        Cursor::new(self.0).chain(rest)
    }

    /// Returns the whole input, whose rest is `rest`, decompressed.
    pub(super) fn decompress(self, rest: impl BufRead + Send + 'static) -> Box<dyn BufRead + Send> {
        let (is_gzip, is_zstd) = (self.is_gzip(), self.is_zstd());
        let input = self.unread(rest);
        if is_gzip {
            let members = GzipMembers(Some(GzDecoder::new(input)));
            return Box::new(BufReader::new(members));
        }
        if is_zstd {
            let frames = ZstdFrames {
                input: Some(Peekable::of(input)),
                frame: None,
            };
            return Box::new(BufReader::new(frames));
        }
        Box::new(input)
    }
}

/// The members of a gzip file, one after the other. Zeros behind a member are padding, as of tapes and blocks, and left out,
/// as `gzip` does.
struct GzipMembers<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let read = member.read(out)?;
            if read > 0 || out.is_empty() {
                return Ok(read);
            }
            let input = self.0.take().map(GzDecoder::into_inner);
            self.0 = input.map(next_member).transpose()?.flatten();
        }
        Ok(0)
    }
}

/// Skips zeros; returns the member behind them, or `None` at the end.
fn next_member<R: BufRead>(mut input: R) -> io::Result<Option<GzDecoder<R>>> {
    loop {
        let ahead = input.fill_buf()?;
        let zeros = ahead.iter().take_while(|byte| **byte == 0).count();
        match (ahead.len(), zeros) {
            (0, _) => return Ok(None),
            (bytes, zeros) if zeros < bytes => {
                input.consume(zeros);
                return Ok(Some(GzDecoder::new(input)));
            }
            _ => input.consume(zeros),
        }
    }
}

/// Whether a zstd frame that begins so holds no content: programs that compress with several threads write such frames.
fn is_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// An input whose next bytes can be looked at.
struct Peekable<R> {
    ahead: Cursor<Vec<u8>>,
    rest: R,
}

impl<R: Read> Peekable<R> {
    fn of(rest: R) -> Self {
        Self {
            ahead: Cursor::default(),
            rest,
        }
    }

    /// The next bytes, as many as the header of a frame may have or as there are; they are read again afterwards.
    fn peek(&mut self) -> io::Result<Vec<u8>> {
        let mut head = Vec::with_capacity(ZSTD_HEADER_BYTES);
        Read::take(&mut *self, ZSTD_HEADER_BYTES as u64).read_to_end(&mut head)?;
        let mut unread = Vec::new();
        self.ahead.read_to_end(&mut unread)?;
        self.ahead = Cursor::new([&head[..], &unread].concat());
        Ok(head)
    }

    /// Reads a skippable frame: its mark, its length, and as many bytes.
    fn skip_frame(&mut self) -> io::Result<()> {
        let mut header = [0; 8];
        self.read_exact(&mut header)?;
        let [_, _, _, _, length @ ..] = header;
        let length = u64::from(u32::from_le_bytes(length));
        let skipped = io::copy(&mut Read::take(&mut *self, length), &mut io::sink())?;
        match skipped == length {
            true => Ok(()),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<R: Read> Read for Peekable<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.ahead.read(out)? {
            0 => self.rest.read(out),
            read => Ok(read),
        }
    }
}

/// Refuses a frame that asks for more memory than allowed: as much of its content is kept while it is read.
fn check_window(head: &[u8]) -> io::Result<()> {
    match window_bytes(head) {
        Some(window) if window > ZSTD_WINDOW_BYTES_MAX => {
            let what = format!(
                "zstd window too large: {window} bytes; expected at most {ZSTD_WINDOW_BYTES_MAX}. Decompress the file with \
                 zstd --long=31 -d first"
            );
            Err(io::Error::new(ErrorKind::InvalidData, what))
        }
        _ => Ok(()),
    }
}

/// How much of a frame's content its header asks to keep (RFC 8878, section 3.1.1.1); `None`: the header is cut short.
fn window_bytes(head: &[u8]) -> Option<u64> {
    let (&descriptor, rest) = head.get(ZSTD.len()..)?.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let dictionary_bytes = (1 << (descriptor & 3)) >> 1;
    let size_bytes = 1 << (descriptor >> 6);
    let size = rest.get(dictionary_bytes..dictionary_bytes + size_bytes)?;
    let size = size
        .iter()
        .rev()
        .fold(0, |size, &byte| size << 8 | u64::from(byte));
    Some(size + if size_bytes == 2 { 256 } else { 0 })
}

/// Compares the content of a frame that was read to its end with its checksum, if it has one.
fn check_content(frame: &FrameDecoder) -> io::Result<()> {
    match (
        frame.get_checksum_from_data(),
        frame.get_calculated_checksum(),
    ) {
        (Some(expected), Some(found)) if found != expected => {
            let what = format!(
                "zstd checksum different: {found:08x}; expected {expected:08x}. The file was damaged"
            );
            Err(io::Error::new(ErrorKind::InvalidData, what))
        }
        _ => Ok(()),
    }
}

/// The frames of a zstd file, one after the other.
struct ZstdFrames<R: Read> {
    /// The rest of the file, between two frames.
    input: Option<Peekable<R>>,
    frame: Option<Box<StreamingDecoder<Peekable<R>, FrameDecoder>>>,
}

impl<R: Read> Read for ZstdFrames<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(mut frame) = self.frame.take() {
                let read = frame.read(out)?;
                if read > 0 || out.is_empty() {
                    self.frame = Some(frame);
                    return Ok(read);
                }
                check_content(&frame.decoder)?;
                self.input = Some(frame.into_inner());
            }
            let Some(mut input) = self.input.take() else {
                return Ok(0);
            };
            let head = input.peek()?;
            if head.is_empty() {
                return Ok(0);
            }
            if is_skippable(&head) {
                input.skip_frame()?;
                self.input = Some(input);
                continue;
            }
            check_window(&head)?;
            let frame = StreamingDecoder::new(input).map_err(io::Error::other)?;
            self.frame = Some(Box::new(frame));
        }
    }
}
