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
        let Some(name) = name.to_str() else {
            continue;
        };
        if let Some(meant) = meant(&known, name) {
            let name = name.to_owned();
            return Err(SettingError::Unknown { name })
                .with_context(|| format!("in the environment, where {meant} may be meant"));
        }
    }
    Ok(())
}

/// Returns the known variable that this one is a mistyped form of: other letters, small letters, dashes, another order of its
/// words, or too few of them.
fn meant<'a>(known: &'a [String], name: &str) -> Option<&'a str> {
    if known.iter().any(|known| known == name) {
        return None;
    }
    let written = name.to_uppercase().replace(['-', '.'], "_");
    let words = |name: &str| {
        let mut words: Vec<_> = name.split('_').map(str::to_owned).collect();
        words.sort();
        words
    };
    // The word of the program and two more: fewer say too little.
    let begins = |known: &&String| {
        words(&written).len() > 2
            && known
                .strip_prefix(&written)
                .is_some_and(|rest| rest.starts_with('_'))
    };
    let of_words = |known: &&String| words(known) == words(&written) || begins(known);
    let distance = |known: &String| strsim::damerau_levenshtein(known, &written);
    let nearest = known.iter().map(|known| (distance(known), known)).min();
    let by_letters = nearest.filter(|(letters, _)| *letters <= LETTERS_MAX);
    let found = by_letters.map(|(_, known)| known);
    found
        .or_else(|| known.iter().find(of_words))
        .map(String::as_str)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_looks_like_a_mistyped_one_is_found_and_those_of_others_are_not() {
        let known: Vec<String> = Settings::ALL.iter().map(variable).collect();
        for (name, expected) in [
            ("LEFTFOLD_LISTN", "LEFTFOLD_LISTEN"),
            ("leftfold_listen", "LEFTFOLD_LISTEN"),
            ("LEFTFOLD-LISTEN", "LEFTFOLD_LISTEN"),
            ("LEFTFLOD_LISTEN", "LEFTFOLD_LISTEN"),
            ("LEFT_FOLD_LISTEN", "LEFTFOLD_LISTEN"),
            ("LEFTFOLD_MAX_CONNECTIONS", "LEFTFOLD_CONNECTIONS_MAX"),
            ("LEFTFOLD_TLS_CERTIFICATE", "LEFTFOLD_TLS_CERTIFICATE_FILE"),
        ] {
            assert_eq!(meant(&known, name), Some(expected), "{name}");
        }
        for name in [
            "LEFTFOLD_LISTEN",
            "LEFTFOLD_PORT",
            "LEFTFOLD_SERVICE_HOST",
            "LEFTFOLD_SERVICE_PORT_HTTP",
            "LEFTFOLD_PORT_2113_TCP_ADDR",
            "LEFTFOLD_TLS",
            "LISTEN",
            "PATH",
        ] {
            assert_eq!(meant(&known, name), None, "{name}");
        }
    }
}
