//! Settings of the server as flags and environment variables.
//!
//! **Owns:** turning the server's own table of settings into arguments. **Does not know:** what any setting means.
//! **Invariants:** a new setting needs no line here.

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
