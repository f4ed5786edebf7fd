//! The `leftfold` command: an event store on the command line.
//!
//! **Owns:** the process: arguments in, exit code out. **Does not know:** what the subcommands do.
//! **Invariants:** results go to standard output, everything else to standard error as `leftfold: ...`; the exit code names
//! the kind of failure; a closed pipe on standard output ends the command without an error.

mod allocator;
mod cli;
mod command;
mod display;
mod exit_code;
mod group_args;
mod open;
#[cfg(test)]
mod reference;
mod runtime;
mod setting_args;
mod signals;

use std::{io::Write, process::ExitCode};

use clap::Parser;
use leftfold_model::ErrorChain;

use crate::{cli::Cli, exit_code::Exit};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(invalid) if invalid.use_stderr() => return report_usage(&invalid),
        // Help, or the version.
        Err(asked) => asked.exit(),
    };
    if matches!(cli.command, cli::Command::Serve(_)) {
        allocator::set_up();
    }
    let result = runtime::start().and_then(|runtime| runtime.block_on(command::run(cli.command)));
    match result {
        Ok(exit) => exit.into(),
        Err(error) if exit_code::is_closed_pipe(&error) => Exit::Ok.into(),
        Err(error) => {
            // If standard error is closed too, there is nowhere left to report to.
            let _ = writeln!(
                std::io::stderr().lock(),
                "leftfold: {}",
                display::escape(&ErrorChain(error.as_ref()).to_string())
            );
            if let Some(code) = exit_code::code_of(&error) {
                let _ = writeln!(
                    std::io::stderr().lock(),
                    "leftfold: error {code}; `leftfold explain {code}` says what to do"
                );
            }
            exit_code::exit_of(&error).into()
        }
    }
}

/// Reports an invalid command line. Its text repeats arguments, which may be names of a store.
fn report_usage(invalid: &clap::Error) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    for line in invalid.render().to_string().lines() {
        let _ = writeln!(stderr, "{}", display::escape(line));
    }
    Exit::Usage.into()
}
