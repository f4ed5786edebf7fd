//! Settings of the server as flags and environment variables.
//!
//! **Owns:** turning the server's own table of settings into arguments; finding mistyped variables. **Does not know:** what any
//! setting means.
//! **Invariants:** a new setting needs no line here.

use std::env;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, builder::StyledStr};
use leftfold_server::{Setting, SettingError, Settings};

/// The settings that flags and environment set, without defaults.
#[derive(Debug, Clone, Default)]
pub(crate) struct SettingArgs(Vec<(&'static str, String)>);

impl SettingArgs {
    /// Applies them to `settings`.
    pub(crate) fn apply(&self, settings: &mut Settings) -> Result<(), SettingError> {
        self.0
            .iter()
            .try_for_each(|(name, value)| settings.set(name, value))
    }
}

/// Variables of the command that are no settings of the server.
const OTHER_VARIABLES: &[&str] = &[
    "LEFTFOLD_CONFIG",
    "LEFTFOLD_DATA",
    "LEFTFOLD_URL",
    "LEFTFOLD_USER",
    "LEFTFOLD_PASSWORD_FILE",
    "LEFTFOLD_API_KEY_FILE",
];
/// Letters by which a mistyped variable differs from the one that is meant. With more, names that have nothing to do with
/// settings would count, such as those that a cluster makes for a service of this name.
const LETTERS_MAX: usize = 2;

/// Refuses an environment variable that is not known and looks like a mistyped one.
///
/// # Errors
/// The variable, and the one that may be meant.
pub(crate) fn check_environment() -> anyhow::Result<()> {
    let others = OTHER_VARIABLES.iter().map(ToString::to_string);
    let known: Vec<String> = Settings::ALL.iter().map(variable).chain(others).collect();
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("LEFTFOLD_")) else {
            continue;
        };
        let distance = |known: &String| strsim::damerau_levenshtein(known, name);
        let nearest = known.iter().map(|known| (distance(known), known)).min();
        if let Some((1..=LETTERS_MAX, meant)) = nearest {
            let name = name.to_owned();
            return Err(SettingError::Unknown { name })
                .with_context(|| format!("in the environment, where {meant} may be meant"));
        }
    }
    Ok(())
}

/// Returns the environment variable of a setting.
pub(crate) fn variable(setting: &Setting) -> String {
    format!("LEFTFOLD_{}", setting.name.to_uppercase())
}

/// Returns the flag of a setting, without its leading dashes.
pub(crate) fn flag(setting: &Setting) -> String {
    setting.name.replace('_', "-")
}

fn argument(setting: &Setting) -> Arg {
    let (help, default) = (setting.help.trim(), setting.default);
    let shown = if default.is_empty() {
        help.to_owned()
    } else {
        format!("{help} [default: {default}]")
    };
    let argument = Arg::new(setting.name)
        .long(flag(setting))
        .env(variable(setting))
        .help(StyledStr::from(shown))
        .help_heading("Settings");
    if setting.is_switch() {
        argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .default_missing_value("true")
            .require_equals(true)
            .value_name("true|false")
    } else {
        argument.value_name("VALUE")
    }
}

impl Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        command.args(Settings::ALL.iter().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Settings::ALL.iter().filter_map(|setting| {
            let value = matches.get_one::<String>(setting.name)?;
            Some((setting.name, value.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
