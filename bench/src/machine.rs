//! The machine: what it is, and what this process uses of it.
//!
//! **Owns:** the heading's facts, memory, CPU time, the page cache. **Does not know:** stores.
//! **Invariants:** reads `/proc` and the file system; changes nothing but the page cache of the files it is given.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{Advice, fadvise};

/// Resident memory now and at its highest, in MiB.
pub(crate) fn memory() -> anyhow::Result<(f64, f64)> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line
            .and_then(|line| line.split_whitespace().nth(1))
            .and_then(|kib| kib.parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1_024.0
    };
    Ok((field("VmRSS:"), field("VmHWM:")))
}

/// CPU time of this process, all threads.
pub(crate) fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = |nth| {
        behind_name
            .split(' ')
            .nth(nth)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    Ok((ticks(11) + ticks(12)) / 100.0)
}

/// The files of a directory, opened. One that is replaced meanwhile, as stores do, is left out.
fn open_files(directory: &Path) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        match File::open(entry?.path()) {
            Ok(file) if file.metadata()?.is_file() => files.push(file),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(files)
}

/// Bytes that the files of a directory take on the disk.
pub(crate) fn directory_bytes(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for file in open_files(directory)? {
        bytes += file.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}

/// Writes the files of a directory back and drops them from the page cache.
pub(crate) fn forget_files(directory: &Path) -> anyhow::Result<()> {
    for file in open_files(directory)? {
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Reads the files of a directory, so that they are in the page cache.
pub(crate) fn read_files(directory: &Path) -> anyhow::Result<()> {
    for mut file in open_files(directory)? {
        std::io::copy(&mut file, &mut std::io::sink())?;
    }
    Ok(())
}

/// Tells a child which group to join.
pub(crate) const GROUP_VARIABLE: &str = "LEFTFOLD_BENCH_GROUP";

/// A control group with bounded memory, for one child; needs the right to make one.
#[derive(Debug)]
pub(crate) struct MemoryGroup {
    path: PathBuf,
}

impl MemoryGroup {
    /// Whether this process may make one.
    pub(crate) fn is_possible() -> bool {
        Self::new(1_024).is_ok()
    }

    pub(crate) fn new(mib: u64) -> anyhow::Result<Self> {
        let name = format!("leftfold-bench-{}", std::process::id());
        let (first, second) = ("/sys/fs/cgroup/memory", "/sys/fs/cgroup");
        let (path, limit) = if Path::new(first).is_dir() {
            (Path::new(first).join(name), "memory.limit_in_bytes")
        } else {
            (Path::new(second).join(name), "memory.max")
        };
        fs::create_dir_all(&path)?;
        let group = Self { path };
        fs::write(group.path.join(limit), (mib * 1_024 * 1_024).to_string())?;
        Ok(group)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The child is gone; a group that cannot be removed does no harm.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Joins the group that the parent made, if it made one.
pub(crate) fn join_group() -> anyhow::Result<()> {
    if let Some(path) = std::env::var_os(GROUP_VARIABLE) {
        let processes = Path::new(&path).join("cgroup.procs");
        fs::write(processes, std::process::id().to_string())?;
    }
    Ok(())
}

/// What the table's heading says.
pub(crate) fn facts(directory: &Path) -> Vec<(&'static str, String)> {
    let first_line = |path: &str, prefix: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with(prefix))
            .unwrap_or_default()
            .to_owned();
        line.split_once(':')
            .map_or(line.clone(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let file_system = Command::new("df")
        .arg("--output=fstype,source")
        .arg(directory)
        .output();
    let file_system = file_system
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    vec![
        (
            "processor",
            format!(
                "{} ({cores} cores)",
                first_line("/proc/cpuinfo", "model name")
            ),
        ),
        ("memory", first_line("/proc/meminfo", "MemTotal")),
        (
            "kernel",
            fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
        ),
        (
            "file system",
            file_system
                .lines()
                .last()
                .unwrap_or_default()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" on "),
        ),
    ]
}
