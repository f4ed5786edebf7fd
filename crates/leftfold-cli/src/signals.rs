//! Signals that ask the process to end.
//!
//! **Owns:** [`Signals`], which replaces the system's handling of interrupt and terminate. **Does not know:** what ends.
//! **Invariants:** a signal that arrives between two calls of [`Signals::next`] is kept; several count as one.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal as Interrupt, Signal as Terminate, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{CtrlC as Interrupt, CtrlClose as Terminate, ctrl_c, ctrl_close};

/// The signals that ask the process to end: an interrupt from the terminal, or a termination by a supervisor.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Interrupt,
    terminate: Terminate,
}

impl Signals {
    /// Starts listening: from now on, these signals no longer end the process by themselves.
    #[cfg(unix)]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Starts listening: from now on, these signals no longer end the process by themselves.
    #[cfg(windows)]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: ctrl_c()?,
            terminate: ctrl_close()?,
        })
    }

    /// Waits for the next signal. Cancel safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
