//! `eventsourcing` for Python, on SQLite.
//!
//! **Owns:** the process that runs it. **Does not know:** Python.
//! **Invariants:** one process for all runs, told by lines which commands to carry out; it answers with a rate.

use std::{
    io::{BufRead, BufReader, Write},
    ops::Range,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use anyhow::Context;

pub(crate) struct Peer {
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

/// Starts it, and has it fill its database.
pub(crate) fn filled(python: &Path, database: &Path) -> anyhow::Result<Peer> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/bank.py");
    let mut child = Command::new(python)
        .arg(script)
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start Python")?;
    let input = child.stdin.take().context("no input")?;
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    anyhow::ensure!(line.trim() == "filled", "Python said {line:?}");
    let pipes = Mutex::new((input, output));
    Ok(Peer { child, pipes })
}

impl Peer {
    /// Commands per second, over these.
    pub(crate) fn run(&self, commands: &Range<u64>) -> anyhow::Result<f64> {
        let mut pipes = self.pipes.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        let (input, output) = &mut *pipes;
        writeln!(input, "{} {}", commands.start, commands.end)?;
        input.flush()?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        line.trim().parse().context("no rate")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends with its input; this is for one that does not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
