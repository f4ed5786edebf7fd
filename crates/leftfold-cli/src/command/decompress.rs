//! Decompression of input files, recognised by their first bytes.
//!
//! **Owns:** [`decompressed`]. **Does not know:** what the bytes mean.
//! **Invariants:** input is decompressed as it is read, in bounded memory; files of several gzip members or zstd frames are
//! read to their end, skippable frames of zstd left out; a truncated file is an error, not an end.

use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Returns the input decompressed, and whether it was plain.
pub(super) fn decompressed(
    mut input: impl BufRead + Send + 'static,
) -> io::Result<(Box<dyn BufRead + Send>, bool)> {
    let mut head = Vec::with_capacity(ZSTD.len());
    Read::take(&mut input, ZSTD.len() as u64).read_to_end(&mut head)?;
    let is_zstd = head.starts_with(ZSTD) || is_skippable(&head);
    let is_gzip = head.starts_with(GZIP);
    let input = Cursor::new(head).chain(input);
    if is_gzip {
        return Ok((Box::new(BufReader::new(MultiGzDecoder::new(input))), false));
    }
    if is_zstd {
        let frames = ZstdFrames {
            input: Some(Peekable::of(input)),
            frame: None,
        };
        return Ok((Box::new(BufReader::new(frames)), false));
    }
    Ok((Box::new(input), true))
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

    /// The next bytes, as many as the mark of a frame has or as there are; they are read again afterwards.
    fn peek(&mut self) -> io::Result<Vec<u8>> {
        let mut head = Vec::with_capacity(ZSTD.len());
        Read::take(&mut *self, ZSTD.len() as u64).read_to_end(&mut head)?;
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

/// The frames of a zstd file, one after the other.
struct ZstdFrames<R: Read> {
    /// The rest of the file, between two frames.
    input: Option<Peekable<R>>,
    frame: Option<Box<StreamingDecoder<Peekable<R>, ruzstd::decoding::FrameDecoder>>>,
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
            let frame = StreamingDecoder::new(input).map_err(io::Error::other)?;
            self.frame = Some(Box::new(frame));
        }
    }
}
