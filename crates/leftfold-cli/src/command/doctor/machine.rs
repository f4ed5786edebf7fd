//! What the machine gives: descriptors, disk space, syncs, time.
//!
//! **Owns:** the thresholds. **Does not know:** settings beyond the number of connections; what files hold.
//! **Invariants:** the file that is synced has no name, so nothing is left of it and no store finds it.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use leftfold_server::Settings;
use rustix::{
    fs::statvfs,
    process::{Resource, getrlimit},
};

use super::finding::Finding;

/// Descriptors that the store needs beside those of connections.
const STORE_DESCRIPTORS: u64 = 256;
/// Free space below which a store may soon take no appends.
const FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;
/// The part of a disk that should be free, as a divisor.
const FREE_PART: u64 = 20;
/// Syncs per second below which appends of a single caller are slow.
const SYNCS_FEW: f64 = 100.0;
/// Syncs per second that no disk does which keeps what it acknowledges.
const SYNCS_TOO_MANY: f64 = 100_000.0;
/// How long syncs are measured.
const SYNC_TIME: Duration = Duration::from_millis(300);
/// How far the newest file may be ahead of the clock.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// 2024-01-01, in seconds since 1970: this program is not older.
const EARLIEST: u64 = 1_704_067_200;

/// The nearest directory above that exists, or the directory itself.
pub(super) fn existing(directory: &Path) -> &Path {
    let there = directory.ancestors().find(|at| at.is_dir());
    there.unwrap_or_else(|| Path::new("."))
}

pub(super) fn descriptors(settings: &Settings) -> Finding {
    let check = "descriptors";
    let limit = getrlimit(Resource::Nofile);
    // The server raises the soft limit to the hard one.
    let Some(hard) = limit.maximum else {
        return Finding::ok(check, "no limit");
    };
    let connections = u64::try_from(settings.connections_max).unwrap_or(u64::MAX);
    let wanted = connections.saturating_add(STORE_DESCRIPTORS);
    let remedy = format!("raise it to {wanted}: LimitNOFILE={wanted} for systemd, `ulimit -Hn`");
    match hard {
        _ if hard >= wanted => Finding::ok(
            check,
            format!("limit {hard}; {connections} connections and the store need {wanted}"),
        ),
        0..=271 => Finding::problem(check, format!("limit {hard} is too low to start"), remedy),
        _ => {
            let left = hard - STORE_DESCRIPTORS;
            let found = format!("limit {hard} leaves {left} of {connections} connections");
            Finding::warning(check, found, remedy)
        }
    }
}

pub(super) fn disk_space(directory: &Path) -> Finding {
    let check = "disk-space";
    let stat = match statvfs(directory) {
        Ok(stat) => stat,
        Err(error) => return not_checked(check, directory, &error),
    };
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let (free, size) = (bytes(stat.f_bavail), bytes(stat.f_blocks));
    let found = format!("{} MiB of {} MiB are free", free >> 20, size >> 20);
    let remedy = "free space, or move the store to a larger disk; appends fail once it is full";
    if free < FREE_BYTES_MIN {
        Finding::problem(check, found, remedy)
    } else if free < size / FREE_PART {
        Finding::warning(check, found, remedy)
    } else {
        Finding::ok(check, found)
    }
}

pub(super) fn sync_rate(directory: &Path) -> Finding {
    let check = "sync-rate";
    let rate = match measured_rate(directory) {
        Ok(rate) => rate,
        Err(error) => {
            let found = format!("cannot write in {}: {error}", directory.display());
            let remedy = "give the user that runs the server the right to write there";
            return Finding::problem(check, found, remedy);
        }
    };
    let found = format!("{rate:.0} writes per second, each synced");
    if rate < SYNCS_FEW {
        let remedy =
            "each caller waits that long for its append; use an SSD, or append many events at once";
        Finding::warning(check, found, remedy)
    } else if rate > SYNCS_TOO_MANY {
        let remedy = "a sync seems to do nothing here, as on tmpfs: use a disk that keeps what it acknowledges";
        Finding::warning(check, found, remedy)
    } else {
        Finding::ok(check, found)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the disk is measured beside the store, not through it"
)]
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn measured_rate(directory: &Path) -> std::io::Result<f64> {
    let file = tempfile::tempfile_in(directory)?;
    let room = 1024 * 1024_u64;
    file.write_all_at(&vec![0; 1024 * 1024], 0)?;
    file.sync_all()?;
    let (begun, mut writes) = (Instant::now(), 0_u64);
    while begun.elapsed() < SYNC_TIME {
        file.write_all_at(&[7; 256], (writes * 256) % (room - 256))?;
        file.sync_data()?;
        writes += 1;
    }
    Ok(writes as f64 / begun.elapsed().as_secs_f64())
}

/// Compares the clock with when this program was made, and with the newest file of the store.
#[expect(clippy::disallowed_methods, reason = "the clock is what is checked")]
pub(super) fn clock(directory: &Path) -> Finding {
    let check = "clock";
    let remedy = "set the clock and keep it so, as by chrony or systemd-timesyncd";
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = since.unwrap_or_default();
    let text = match jiff::Timestamp::try_from(SystemTime::now()) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("{now:?} after 1970"),
    };
    if now.as_secs() < EARLIEST {
        return Finding::problem(check, format!("it is {text} by the clock"), remedy);
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let times = entries.filter_map(|entry| u64::try_from(entry.metadata().ok()?.mtime()).ok());
    let newest = times.max().map(Duration::from_secs).unwrap_or_default();
    if newest > now + AHEAD_MAX {
        let ahead = (newest - now).as_secs();
        let found =
            format!("it is {text} by the clock; the newest file of the store is {ahead} s ahead");
        return Finding::problem(check, found, remedy);
    }
    Finding::ok(check, text)
}

fn not_checked(check: &'static str, directory: &Path, error: &rustix::io::Errno) -> Finding {
    let found = format!("cannot be read for {}: {error}", directory.display());
    Finding::warning(check, found, "check it by hand")
}
