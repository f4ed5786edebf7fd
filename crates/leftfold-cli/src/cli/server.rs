//! The command line of the server, and of the check of its installation.
//!
//! **Owns:** their flags and texts. **Does not know:** what is done with them; which settings there are.

use std::path::PathBuf;

use clap::Args;

use crate::setting_args::SettingArgs;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Directory of the store, or a database as `postgres://...` or `mongodb://...`, created if it is missing.
    /// [env: LEFTFOLD_DATA]
    #[arg(long, value_name = "STORE")]
    pub(crate) data: Option<PathBuf>,
    /// Keep events in memory and drop them when the server ends.
    #[arg(long)]
    pub(crate) memory: bool,
    /// A file of settings, TOML.
    #[arg(long, value_name = "FILE", env = "LEFTFOLD_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print every setting with its default and meaning as a table, and exit.
    #[arg(long)]
    pub(crate) print_settings: bool,
    #[command(flatten)]
    pub(crate) given: SettingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Directory of the store, or a database as `postgres://...` or `mongodb://...`. [env: LEFTFOLD_DATA]
    #[arg(long, value_name = "STORE")]
    pub(crate) data: Option<PathBuf>,
    /// A file of settings, TOML.
    #[arg(long, value_name = "FILE", env = "LEFTFOLD_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print each finding as JSON, one object per line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) given: SettingArgs,
}
