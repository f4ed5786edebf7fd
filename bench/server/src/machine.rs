//! The machine, and what processes use of it.
//!
//! **Owns:** the heading's facts; CPU time and memory of a process. **Does not know:** servers.
//! **Invariants:** only reads, from `/proc` and by `df`.

use std::{fs, path::Path, process::Command, time::Instant};

/// Clock ticks of `/proc/PID/stat` per second; the kernel has kept to this number on all architectures.
const TICKS: f64 = 100.0;

/// CPU time of a process, all its threads, those that ended too.
pub(crate) fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name may hold anything, blanks and brackets too.
    let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = |nth| {
        let field = behind_name.split(' ').nth(nth);
        field
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    Ok((ticks(11) + ticks(12)) / TICKS)
}

/// Resident memory of a process, now and at its highest, in MiB.
pub(crate) fn memory(process: u32) -> anyhow::Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line
            .and_then(|line| line.split_whitespace().nth(1))
            .and_then(|kib| kib.parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1_024.0
    };
    Ok((field("VmRSS:"), field("VmHWM:")))
}

/// What was used up to a moment, by a server and by this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    at: Instant,
    server: f64,
    client: f64,
}

impl Used {
    pub(crate) fn by(server: u32) -> anyhow::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            server: cpu_seconds(server)?,
            client: cpu_seconds(std::process::id())?,
        })
    }

    /// Cores that the server and this process used between both moments.
    pub(crate) fn cores_until(self, later: Self) -> (f64, f64) {
        let seconds = later.at.duration_since(self.at).as_secs_f64().max(1e-9);
        (
            (later.server - self.server) / seconds,
            (later.client - self.client) / seconds,
        )
    }
}

/// What the table's heading says.
pub(crate) fn facts(directory: &Path) -> Vec<(&'static str, String)> {
    let value_of = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = value_of("/proc/cpuinfo", "model name");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let file_system = Command::new("df")
        .arg("--output=fstype,source")
        .arg(directory)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let file_system: Vec<_> = file_system
        .lines()
        .last()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    vec![
        (
            "processor",
            format!("{processor} ({cores} cores, for servers and clients together)"),
        ),
        ("memory", value_of("/proc/meminfo", "MemTotal")),
        ("kernel", kernel.trim().to_owned()),
        ("file system", file_system.join(" on ")),
    ]
}
