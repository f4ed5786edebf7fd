//! Signals that ask the process to end, or to read files again.
//!
//! **Owns:** [`Signals`] and [`Hangups`], which replace the system's handling. **Does not know:** what ends, which files.
//! **Invariants:** a signal that arrives between two calls of `next` is kept; several count as one.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{
    Signal as Interrupt, Signal as Terminate, Signal as Hangup, SignalKind, signal,
};
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

/// Hangups, which ask the process to read files again. Windows has none.
#[derive(Debug)]
pub(crate) struct Hangups {
    #[cfg(unix)]
    hangup: Hangup,
}

impl Hangups {
    /// Starts listening: from now on, a hangup no longer ends the process.
    #[cfg(unix)]
    pub(crate) fn listen() -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { hangup })
    }

    /// Starts listening.
    #[cfg(windows)]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next hangup; `None` if none will come. Cancel safe.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Option<()> {
        self.hangup.recv().await
    }

    /// Returns `None`: none will come.
    #[cfg(windows)]
    pub(crate) async fn next(&mut self) -> Option<()> {
        None
    }
}
