//! The bank over the store and over Emmett's: commands that load an account, decide, and append.
//!
//! **Owns:** our account, and the process that runs Emmett. **Does not know:** rows. **Invariants:** both sides carry out the
//! same commands: deposit 100, withdraw 30, in turn, a hundred on each account.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::Context;
use leftfold::{Aggregate, Event, Store};
use serde::{Deserialize, Serialize};

use crate::rate;

const COMMANDS_OF_ACCOUNT: u64 = 100;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { amount: u64 },
    #[event("WithdrawalMade")]
    WithdrawalMade { amount: u64 },
}

#[derive(Default, Debug)]
struct Account {
    balance: u64,
}

impl Account {
    fn withdraw(&self, amount: u64) -> Result<AccountEvent, String> {
        if amount > self.balance {
            return Err("insufficient funds".into());
        }
        Ok(AccountEvent::WithdrawalMade { amount })
    }
}

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::DepositMade { amount } => self.balance += amount,
            AccountEvent::WithdrawalMade { amount } => self.balance -= amount,
        }
    }
}

/// Commands per second over the store, with a cache of so many states.
pub(crate) async fn commands(
    store: &Store,
    run: u64,
    callers: u64,
    seconds: f64,
    states: usize,
) -> anyhow::Result<f64> {
    let accounts = store.repository::<Account>();
    let accounts = match states {
        0 => accounts,
        states => accounts.with_state_cache(states),
    };
    rate(callers, seconds, move |caller, count| {
        let accounts = accounts.clone();
        async move {
            let account = format!("{run}-{caller}-{}", count / COMMANDS_OF_ACCOUNT);
            let is_deposit = count % 2 == 0;
            accounts
                .execute(&account, |account| match is_deposit {
                    true => Ok(AccountEvent::DepositMade { amount: 100 }),
                    false => account.withdraw(30),
                })
                .await?;
            Ok(())
        }
    })
    .await
}

/// Emmett, in a process of its own for all runs.
pub(crate) struct Emmett {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Emmett {
    /// Starts it: the directory has the script and what it depends on.
    pub(crate) fn start(directory: &Path, address: &str) -> anyhow::Result<Self> {
        let mut child = Command::new("node")
            .arg(directory.join("bank.js"))
            .arg(address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start node")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self {
            child,
            input,
            output,
        })
    }

    /// Commands per second.
    pub(crate) fn commands(&mut self, callers: u64, seconds: f64) -> anyhow::Result<f64> {
        writeln!(self.input, "{callers} {}", seconds * 1_000.0)?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().parse().context("no rate")
    }
}

impl Drop for Emmett {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
