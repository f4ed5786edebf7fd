//! `leftfold salvage`: what is sound of a damaged store.
//!
//! **Owns:** writing the sound events to a file, and printing which positions are missing. **Does not know:** checksums.
//! **Invariants:** the store is not changed; a file that exists is not replaced, a pipe or a device is written into, and a file
//! that is not complete never has its name; every missing position is named on standard error, and missing positions end with the
//! exit code of damage.

use std::{
    io::{BufWriter, Write, stderr},
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use leftfold_log::{
    OpenError, SalvageReport, Salvaged,
    disk::{Disk, read_only::ReadOnlyDisk},
    salvage,
};
use leftfold_server::json;

use super::{
    output,
    output_file::{self, OutputFile},
};
use crate::{
    cli::{self, Data},
    display::{self, JsonLines},
    exit_code::Exit,
    open::{self, StoreLocation, StoreLocationError},
};

/// What ends a salvage: the store, or the file that is written.
#[derive(Debug, thiserror::Error)]
enum SalvageError {
    #[error("store not readable")]
    Open(#[from] OpenError),
    #[error("events not written")]
    Output(#[from] std::io::Error),
    #[error("event not expressible in JSON")]
    Json(#[from] serde_json::Error),
}

pub(crate) fn run(arguments: &cli::Salvage) -> anyhow::Result<Exit> {
    let data = Data {
        data: arguments.data.clone(),
        url: None,
    };
    let StoreLocation::Directory(directory) = StoreLocation::of(&data)? else {
        return Err(StoreLocationError::NeedsFiles.into());
    };
    open::must_exist(&directory)?;
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk::at(&directory)?);
    let cannot = || format!("cannot salvage {}", directory.display());
    let report = match arguments.file == Path::new("-") {
        true => {
            let mut out = JsonLines::to_standard_output(output());
            write(&disk, &mut out).with_context(cannot)?
        }
        false => {
            let file = &arguments.file;
            let stream = output_file::open_stream(file);
            match stream.with_context(|| format!("cannot open {}", file.display()))? {
                Some(stream) => {
                    let mut out = BufWriter::with_capacity(256 * 1024, stream);
                    write(&disk, &mut out).with_context(cannot)?
                }
                None => {
                    open::must_be_path(file)?;
                    open::must_lie_outside(file, &data)?;
                    to_file(&disk, file).with_context(cannot)?
                }
            }
        }
    };
    let SalvageReport {
        events,
        erased,
        missing,
        torn_bytes,
        unreadable_bytes,
        ..
    } = report;
    let mut messages = stderr();
    writeln!(
        messages,
        "{events} events saved, {erased} places of erased events are sound, {missing} positions are missing"
    )?;
    if torn_bytes > 0 {
        writeln!(
            messages,
            "{torn_bytes} bytes at the end hold no sound event: of an append that was never acknowledged, or damaged"
        )?;
    }
    if unreadable_bytes > 0 {
        writeln!(
            messages,
            "{unreadable_bytes} bytes were not returned by the disk, and count as damaged"
        )?;
    }
    Ok(match missing {
        0 => Exit::Ok,
        _ => Exit::Corruption,
    })
}

fn to_file(disk: &Arc<dyn Disk>, path: &Path) -> anyhow::Result<SalvageReport> {
    let file = OutputFile::create_new(path);
    let file = file.with_context(|| format!("cannot create {}", path.display()))?;
    let mut out = BufWriter::with_capacity(256 * 1024, file.file());
    let saved = write(disk, &mut out);
    drop(out);
    // A part of the events must not look like all of them, nor be in the way of the next attempt.
    file.finish(saved.map_err(Into::into))
}

fn write(disk: &Arc<dyn Disk>, out: &mut impl Write) -> Result<SalvageReport, SalvageError> {
    let report = salvage(disk, &mut |found| {
        match found {
            Salvaged::Entry(entry) if entry.is_erased => {}
            Salvaged::Entry(entry) => writeln!(out, "{}", json::format_line(&entry.event, true)?)?,
            Salvaged::Missing(range) => {
                let (first, last) = (range.first, range.last);
                let line = format!(
                    "positions {first} to {last} are missing: {} is damaged at byte {}: {}",
                    range.file, range.offset, range.reason
                );
                writeln!(stderr(), "{}", display::escape(&line))?;
            }
            _ => {}
        }
        Ok::<(), SalvageError>(())
    })?;
    out.flush()?;
    Ok(report)
}
