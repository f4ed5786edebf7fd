//! `leftfold import`: exact exports, and events from JSON Lines.
//!
//! **Owns:** reading lines of bounded length, and which kind of file it is. **Does not know:** the lines' formats; see
//! `leftfold_server::json`.
//! **Invariants:** a bad line stops the import with its number, whatever is wrong with it, and what stands before it is
//! stored; memory does not grow with an exact export.

use std::{
    collections::VecDeque,
    env::temp_dir,
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind, Read, Seek, Write, stdin},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use leftfold_model::{Position, limits};
use leftfold_server::json::ExportReader;
use leftfold_store::{
    EventStore,
    restore::{LogRestore, RestoreError, RestoreProgress},
};

use super::{decompress::Head, import_lines::PlainImport, output};
use crate::{cli, exit_code::InvalidLine, open};

/// The byte order mark that some programs write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// A line that is longer cannot be an event: data and metadata at their limits, in base64, and names.
const LINE_BYTES_MAX: usize = 2 * (limits::DATA_BYTES_MAX + limits::METADATA_BYTES_MAX);
/// Bytes that are read from the file at a time.
const BUFFER_BYTES: usize = 256 * 1024;

pub(crate) async fn run(arguments: cli::Import) -> anyhow::Result<()> {
    let (input, bytes) = open_input(&arguments.file)?;
    let mut lines = Lines {
        input,
        text: Vec::new(),
        number: 0,
        bar: progress(bytes)?,
    };
    let first = lines.next().map(|first| first.map(str::to_owned));
    let begun = match &first {
        Ok(Some(first)) => ExportReader::begin(first).context(InvalidLine(1))?,
        _ => None,
    };
    let store = open::for_writing(&arguments.data).await?;
    let (counts, result) = match begun {
        Some(reader) => exact(&store, reader, &mut lines).await?,
        None => plain(&store, first, &mut lines, arguments.batch).await?,
    };
    lines.bar.finish_and_clear();
    let mut out = output();
    writeln!(
        out,
        "{} events imported, {} were stored already",
        counts.imported, counts.repeated
    )?;
    out.flush()?;
    result?;
    Ok(store.close().await?)
}

/// How many lines were stored, now and before.
struct Counts {
    imported: u64,
    repeated: u64,
}

/// Imports lines of events.
async fn plain(
    store: &Arc<dyn EventStore>,
    first: anyhow::Result<Option<String>>,
    lines: &mut Lines,
    batch: u16,
) -> anyhow::Result<(Counts, anyhow::Result<()>)> {
    let mut import = PlainImport::into(Arc::clone(store), usize::from(batch)).await?;
    let result = match first {
        Ok(Some(first)) => plain_lines(&mut import, &first, lines).await,
        Ok(None) => Ok(()),
        Err(refused) => Err(refused.context(InvalidLine(1))),
    };
    let counts = Counts {
        imported: import.imported,
        repeated: import.repeated,
    };
    Ok((counts, result))
}

async fn plain_lines(
    import: &mut PlainImport,
    first: &str,
    lines: &mut Lines,
) -> anyhow::Result<()> {
    let mut taken = import.line(first, lines.number).await;
    loop {
        if let Err(refused) = taken {
            import.flush().await?;
            return Err(refused.context(InvalidLine(lines.number)));
        }
        if import.is_full() {
            import.flush().await?;
            let events = import.imported + import.repeated;
            lines.bar.set_message(format!("{events} events"));
        }
        taken = match lines.next() {
            Ok(None) => return import.flush().await,
            Ok(Some(line)) => {
                let line = line.to_owned();
                import.line(&line, lines.number).await
            }
            Err(refused) => Err(refused),
        };
    }
}

/// Imports an exact export.
async fn exact(
    store: &Arc<dyn EventStore>,
    mut reader: ExportReader,
    lines: &mut Lines,
) -> anyhow::Result<(Counts, anyhow::Result<()>)> {
    let storage = store.storage().context(
        "an exact export is not imported over a server; stop the server and import with --data, or export with --plain",
    )?;
    let mut restore = LogRestore::begin(storage).await?;
    let mut gathered = GatheredLines::default();
    let read = match exact_lines(&mut restore, &mut reader, lines, &mut gathered).await {
        Ok(()) => reader.finish().map_err(Into::into),
        refused => refused,
    };
    let before = restore.progress();
    let ended = match &read {
        Ok(()) => restore.finish().await,
        Err(_) => restore.stop().await,
    };
    let (imported, finished) = match ended {
        Ok(progress) => (progress.written, Ok(())),
        Err(error) => (imported_until(&error, before), Err(error)),
    };
    let counts = Counts {
        imported,
        repeated: before.present,
    };
    let finished = finished.map_err(|error| match gathered.number_of(&error) {
        Some(number) => anyhow::Error::from(error).context(InvalidLine(number)),
        None => error.into(),
    });
    Ok((counts, read.and(finished)))
}

/// How many entries a copy has written that ended with this error; `before`: how far it was when it was to end.
fn imported_until(error: &RestoreError, before: RestoreProgress) -> u64 {
    match error {
        RestoreError::Append { first, .. } => first.previous().get().saturating_sub(before.present),
        _ => before.written,
    }
}

/// The numbers of the lines whose entries may not be written yet, by position.
#[derive(Default)]
struct GatheredLines(VecDeque<(Position, u64)>);

impl GatheredLines {
    fn add(&mut self, position: Position, number: u64) {
        self.0.push_back((position, number));
    }

    /// Takes note that everything before the newest entries, as many as the copy has not counted, is written.
    fn forget_all_but(&mut self, unwritten: u64) {
        while self.0.len() as u64 > unwritten {
            self.0.pop_front();
        }
    }

    /// The line of the entry that the store refused, if the error is about one.
    fn number_of(&self, error: &RestoreError) -> Option<u64> {
        let RestoreError::Append { first, last, .. } = error else {
            return None;
        };
        let mut lines = self.0.iter().filter(|_| first == last);
        lines
            .find(|(position, _)| position == first)
            .map(|(_, number)| *number)
    }
}

async fn exact_lines(
    restore: &mut LogRestore,
    reader: &mut ExportReader,
    lines: &mut Lines,
    gathered: &mut GatheredLines,
) -> anyhow::Result<()> {
    let mut taken = 0;
    loop {
        let entry = match lines.next() {
            Ok(None) => return Ok(()),
            Ok(Some(line)) => reader.entry(line).map_err(Into::into),
            Err(refused) => Err(refused),
        };
        if let Some(entry) = entry.with_context(|| InvalidLine(lines.number))? {
            gathered.add(entry.position(), lines.number);
            if let Err(refused) = restore.push(entry).await {
                let number = gathered.number_of(&refused).unwrap_or(lines.number);
                return Err(anyhow::Error::from(refused).context(InvalidLine(number)));
            }
            taken += 1;
            let done = restore.progress();
            gathered.forget_all_but(taken - done.written - done.present);
        }
        if lines.number.is_multiple_of(4_096) {
            lines.bar.set_message(format!("{} lines", lines.number));
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the import is the user's file, not the store's"
)]
fn open_input(path: &Path) -> anyhow::Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return open_stream(stdin(), "standard input");
    }
    let cannot = || format!("cannot open {}", path.display());
    let file = File::open(path).map_err(|error| open::cannot_read(path, "open", error))?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return open_stream(file, &path.display().to_string());
    }
    let mut input = BufReader::with_capacity(BUFFER_BYTES, file);
    let head = Head::read(&mut input).with_context(cannot)?;
    if head.is_plain() {
        return Ok((head.decompress(input), Some(metadata.len())));
    }
    let file = input.into_inner();
    Ok((open_compressed(file, &path.display().to_string())?, None))
}

/// Opens an input that can be read once. Compressed input is copied to a temporary file first, so that its checksum is known
/// before a line of it is stored.
fn open_stream(
    input: impl Read + Send + 'static,
    name: &str,
) -> anyhow::Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    let cannot = || format!("cannot read {name}");
    let head = Head::read(&mut input).with_context(cannot)?;
    if head.is_plain() {
        return Ok((head.decompress(input), None));
    }
    let copy = || {
        let mut file = tempfile::tempfile()?;
        io::copy(&mut head.unread(input), &mut file)?;
        io::Result::Ok(file)
    };
    let directory = temp_dir();
    let file = copy().with_context(|| {
        let directory = directory.display();
        format!("cannot copy {name} to a file in {directory}, which compressed input needs")
    })?;
    Ok((open_compressed(file, name)?, None))
}

/// Opens a compressed file, unless its content does not match its checksum.
fn open_compressed(mut file: File, name: &str) -> anyhow::Result<Box<dyn BufRead + Send>> {
    let mut begin = || {
        file.rewind()?;
        let mut input = BufReader::with_capacity(BUFFER_BYTES, file.try_clone()?);
        let head = Head::read(&mut input)?;
        io::Result::Ok(head.decompress(input))
    };
    let checked = begin().and_then(check_compressed);
    checked.with_context(|| format!("{name} is damaged, nothing is imported"))?;
    begin().with_context(|| format!("cannot read {name}"))
}

/// Reads compressed input to its end: the checksum of its content stands behind the content, and no line must be stored that
/// damage has changed. The import itself names the line at which a file breaks off.
fn check_compressed(mut input: impl Read) -> io::Result<()> {
    match io::copy(&mut input, &mut io::sink()) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(()),
    }
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

/// The lines of a file that are not empty.
struct Lines {
    input: Box<dyn BufRead + Send>,
    text: Vec<u8>,
    /// The number of the line that was read last.
    number: u64,
    bar: ProgressBar,
}

impl Lines {
    /// Reads the next line; `None` at the end.
    fn next(&mut self) -> anyhow::Result<Option<&str>> {
        loop {
            self.text.clear();
            self.number += 1;
            let read = read_line(self.input.as_mut(), &mut self.text)?;
            self.bar.inc(read as u64);
            if read == 0 {
                return Ok(None);
            }
            if !self.content().trim_ascii().is_empty() {
                break;
            }
        }
        let line = std::str::from_utf8(self.content()).context("it is not UTF-8")?;
        Ok(Some(line.trim()))
    }

    /// The line without the mark that some programs put in front of the first one.
    fn content(&self) -> &[u8] {
        match self.number {
            1 => self.text.strip_prefix(BYTE_ORDER_MARK),
            _ => None,
        }
        .unwrap_or(&self.text)
    }
}

/// Reads a line of bounded length; returns how many bytes it took, 0 at the end.
fn read_line(input: &mut dyn BufRead, text: &mut Vec<u8>) -> anyhow::Result<usize> {
    let read = Read::take(&mut *input, LINE_BYTES_MAX as u64).read_until(b'\n', text)?;
    if read == LINE_BYTES_MAX {
        bail!("the line is longer than {LINE_BYTES_MAX} bytes");
    }
    Ok(read)
}
