//! What is to be measured: which rows, how long, how often, with whom.
//!
//! **Owns:** the choices of the command line, with what follows from `--quick`. **Does not know:** what a row does.
//! **Invariants:** a quick plan has at least one row of every kind.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use clap::ValueEnum;

use crate::{
    Arguments,
    closed::Timing,
    server::{Kind, Programs},
};

/// Who may stand beside Leftfold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    Umadb,
    Tephra,
    /// No other server.
    None,
}

#[derive(Debug)]
pub(crate) struct Plan {
    quick: bool,
    only: Option<String>,
    peers: Vec<Peer>,
    run: AtomicU64,
    pub(crate) runs: usize,
    pub(crate) timing: Timing,
    pub(crate) events: u64,
    pub(crate) programs: Programs,
    pub(crate) directory: PathBuf,
}

impl Plan {
    pub(crate) fn of(arguments: Arguments, directory: &Path) -> Self {
        let quick = arguments.quick;
        let seconds = arguments.seconds.unwrap_or(if quick { 0.3 } else { 5.0 });
        Self {
            quick,
            only: arguments.only,
            peers: arguments.peers,
            run: AtomicU64::new(0),
            runs: arguments.runs.unwrap_or(if quick { 1 } else { 5 }).max(1),
            timing: Timing {
                warm_up: Duration::from_millis(if quick { 100 } else { 1_000 }),
                measured: Duration::from_secs_f64(seconds),
            },
            events: arguments
                .events
                .unwrap_or(if quick { 20_000 } else { 2_000_000 }),
            programs: Programs {
                leftfold: Some(arguments.leftfold),
                umadb: arguments.umadb,
                tephra: arguments.tephra,
            },
            directory: directory.to_owned(),
        }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// Whether this server is to be measured at all.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Leftfold | Kind::LeftfoldGuarded | Kind::LeftfoldSecured => true,
            Kind::Umadb => self.peers.contains(&Peer::Umadb),
            Kind::Tephra => self.peers.contains(&Peer::Tephra),
        }
    }

    /// All of these, or only the one for quick plans.
    pub(crate) fn choose<T: Copy>(&self, all: &[T], quick: T) -> Vec<T> {
        if self.quick {
            vec![quick]
        } else {
            all.to_vec()
        }
    }

    /// A number that no other run of this program has, so that runs on one log do not share tags.
    pub(crate) fn next_run(&self) -> u64 {
        self.run.fetch_add(1, Ordering::Relaxed)
    }
}
