//! `leftfold import`: events from JSON Lines.
//!
//! **Owns:** making an import safe to repeat. **Does not know:** the format of a line; see `leftfold_server::json`.
//! **Invariants:** lines keep their order; each line is stored once, however often the file is imported; an invalid line
//! stops the import with its number, and all lines before it are stored.
//!
//! **How the import recognises a repetition.** An event without an id gets one derived from its line and line number, so it
//! has the same id in each run. The first line of each stream makes the import read that stream. If the stream holds the id
//! of that line, the file was imported before, at least in part. The import then remembers the ids from there on, 16 bytes
//! each, and skips the lines that carry them in this order. It appends every other line at the exact revision that follows.
//! So a killed run, a longer version of the file and a second run all end with every line stored once. A concurrent writer
//! to one of the streams causes a conflict.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fs::File,
    io::{BufRead, BufReader, Write, stdin},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, bail};
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use leftfold_model::{
    Append, EventId, ExpectedRevision, NewEvent, Position, Read, Revision, StreamName, StreamWrite,
    limits,
};
use leftfold_server::json;
use leftfold_store::EventStore;

use super::{decompress::decompressed, output};
use crate::{cli, open};

/// Approximate bytes of a batch; far below the limit of an append.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// The byte order mark that some programs write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// A line that is longer cannot be an event: data and metadata at their limits, in base64, and names.
const LINE_BYTES_MAX: usize = 2 * (limits::DATA_BYTES_MAX + limits::METADATA_BYTES_MAX);

pub(crate) async fn run(arguments: cli::Import) -> anyhow::Result<()> {
    let (input, bytes) = open_input(&arguments.file)?;
    let store = open::for_writing(&arguments.data).await?;
    let bar = progress(bytes)?;
    let mut import = Import::into(Arc::clone(&store), usize::from(arguments.batch)).await?;
    let result = import.lines(input, &bar).await;
    bar.finish_and_clear();
    let mut out = output();
    writeln!(
        out,
        "{} events imported, {} were stored already",
        import.imported, import.repeated
    )?;
    out.flush()?;
    result?;
    Ok(store.close().await?)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the import is the user's file, not the store's"
)]
fn open_input(path: &Path) -> anyhow::Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((decompressed(BufReader::new(stdin()))?.0, None));
    }
    let cannot = || format!("cannot open {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let bytes = file.metadata()?.len();
    let input = decompressed(BufReader::with_capacity(256 * 1024, file));
    let (input, is_plain) = input.with_context(cannot)?;
    Ok((input, is_plain.then_some(bytes)))
}

fn progress(bytes: Option<u64>) -> anyhow::Result<ProgressBar> {
    Ok(match bytes {
        Some(bytes) => ProgressBar::new(bytes).with_style(ProgressStyle::with_template(
            "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {msg}  {eta} left",
        )?),
        None => ProgressBar::new_spinner()
            .with_style(ProgressStyle::with_template("{spinner} {bytes}  {msg}")?),
    })
}

/// An import in progress.
struct Import {
    store: Arc<dyn EventStore>,
    was_empty: bool,
    batch_lines: usize,
    streams: HashMap<StreamName, ImportedStream>,
    writes: Vec<StreamWrite>,
    lines: usize,
    bytes: usize,
    imported: u64,
    repeated: u64,
    /// The number of the last line of the batch.
    batch_ends: u64,
}

/// A stream that the file has named.
struct ImportedStream {
    /// Stored ids at the revisions of the stream's next lines.
    stored: VecDeque<EventId>,
    /// The expected revision of the stream after the current batch.
    then: ExpectedRevision,
}

impl Import {
    async fn into(store: Arc<dyn EventStore>, batch_lines: usize) -> anyhow::Result<Self> {
        let was_empty = store.head().await? == Position::START;
        Ok(Self {
            store,
            was_empty,
            batch_lines,
            streams: HashMap::new(),
            writes: Vec::new(),
            lines: 0,
            bytes: 0,
            imported: 0,
            repeated: 0,
            batch_ends: 0,
        })
    }

    async fn lines(
        &mut self,
        mut input: Box<dyn BufRead + Send>,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let mut text = Vec::new();
        for number in 1.. {
            match self.line(&mut input, &mut text, number, bar).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(refused) => {
                    self.flush().await?;
                    return Err(refused.context(format!("line {number} is refused")));
                }
            }
            if self.lines >= self.batch_lines || self.bytes >= BATCH_BYTES {
                self.flush().await?;
                bar.set_message(format!("{} events", self.imported + self.repeated));
            }
        }
        self.flush().await
    }

    /// Adds one line to the batch; returns whether there was one. An error leaves the earlier lines.
    async fn line(
        &mut self,
        input: &mut (dyn BufRead + Send),
        text: &mut Vec<u8>,
        number: u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<bool> {
        text.clear();
        let read = read_line(input, text)?;
        bar.inc(read as u64);
        let bytes = match number {
            1 => text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text),
            _ => text,
        };
        let line = std::str::from_utf8(bytes)
            .context("it is not UTF-8")?
            .trim();
        if !line.is_empty() {
            let (stream, event) = json::parse_line(line, number)?;
            self.add(stream, event).await?;
            self.batch_ends = number;
        }
        Ok(read > 0)
    }

    async fn add(&mut self, stream: StreamName, event: NewEvent) -> anyhow::Result<()> {
        let met = match self.streams.entry(stream.clone()) {
            Entry::Occupied(met) => met.into_mut(),
            Entry::Vacant(new) if self.was_empty => new.insert(ImportedStream {
                stored: VecDeque::new(),
                then: ExpectedRevision::NoStream,
            }),
            Entry::Vacant(new) => new.insert(meet(self.store.as_ref(), &stream, event.id()).await?),
        };
        match met.stored.pop_front() {
            Some(id) if id == event.id() => {
                self.repeated += 1;
                return Ok(());
            }
            Some(id) => bail!("stream {stream} holds event {id} where this one should stand"),
            None => {}
        }
        let expected = met.then;
        met.then = ExpectedRevision::Exact(expected.next_revision().unwrap_or_default());
        self.lines += 1;
        self.bytes += event.size();
        match self.writes.last_mut() {
            Some(write) if write.stream == stream => write.events.push(event),
            _ => self.writes.push(StreamWrite {
                stream,
                expected,
                events: vec![event],
            }),
        }
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        if self.writes.is_empty() {
            return Ok(());
        }
        let append = Append::new(std::mem::take(&mut self.writes), Vec::new())?;
        let events = append.event_count() as u64;
        let appended = self.store.append(append).await;
        appended.with_context(|| {
            let last = self.batch_ends;
            format!("append of {events} events that end with line {last} failed")
        })?;
        self.imported += events;
        (self.lines, self.bytes) = (0, 0);
        Ok(())
    }
}

/// Reads a line of bounded length; returns how many bytes it took, 0 at the end.
fn read_line(input: &mut dyn BufRead, text: &mut Vec<u8>) -> anyhow::Result<usize> {
    let read = std::io::Read::take(&mut *input, LINE_BYTES_MAX as u64).read_until(b'\n', text)?;
    if read == LINE_BYTES_MAX {
        bail!("the line is longer than {LINE_BYTES_MAX} bytes");
    }
    Ok(read)
}

/// Looks up which ids of a stream are stored where the file's lines would be, if the first one is.
async fn meet(
    store: &dyn EventStore,
    stream: &StreamName,
    first: EventId,
) -> anyhow::Result<ImportedStream> {
    let mut met = ImportedStream {
        stored: VecDeque::new(),
        then: ExpectedRevision::NoStream,
    };
    let mut batches = store.read(Read::stream(stream.clone()));
    let mut last: Option<Revision> = None;
    while let Some(batch) = batches.next().await {
        for event in batch?.events {
            last = Some(event.revision);
            if !met.stored.is_empty() || event.id == first {
                met.stored.push_back(event.id);
            }
        }
    }
    if let Some(last) = last {
        met.then = ExpectedRevision::Exact(last);
    }
    Ok(met)
}
