//! Decompression of input files, recognised by their first bytes.
//!
//! **Owns:** [`decompressed`]. **Does not know:** what the bytes mean.
//! **Invariants:** input is decompressed as it is read, in bounded memory; files of several gzip members or zstd frames are
//! read to their end; a truncated file is an error, not an end.

use std::io::{self, BufRead, BufReader, Cursor, Read};

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
    let (is_gzip, is_zstd) = (head.starts_with(GZIP), head.starts_with(ZSTD));
    let input = Cursor::new(head).chain(input);
    if is_gzip {
        return Ok((Box::new(BufReader::new(MultiGzDecoder::new(input))), false));
    }
    if is_zstd {
        let frames = ZstdFrames {
            input: Some(input),
            frame: None,
        };
        return Ok((Box::new(BufReader::new(frames)), false));
    }
    Ok((Box::new(input), true))
}

/// The frames of a zstd file, one after the other.
struct ZstdFrames<R: BufRead> {
    /// The rest of the file, between two frames.
    input: Option<R>,
    frame: Option<Box<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>>,
}

impl<R: BufRead> Read for ZstdFrames<R> {
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
            if input.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let frame = StreamingDecoder::new(input).map_err(io::Error::other)?;
            self.frame = Some(Box::new(frame));
        }
    }
}
