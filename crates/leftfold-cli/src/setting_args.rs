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
/// Letters of a word that may be a shortened one.
const SHORTENED_MIN: usize = 3;
/// Letters of a word that others may be a longer form of.
const LENGTHENED_MIN: usize = 4;
/// What people add to the name of a variable that holds the place of a file. No cluster does for a service.
const ADDED_WORDS: [&str; 3] = ["FILE", "PATH", "DIR"];
/// What clusters and containers add to the name of a service.
const WORDS_OF_SERVICES: [&str; 4] = ["PORT", "HOST", "NAME", "SERVICE"];

/// Refuses an environment variable that is not known and looks like a mistyped one.
///
/// # Errors
/// The variable, and the one that may be meant.
pub(crate) fn check_environment() -> anyhow::Result<()> {
    let known = known_variables();
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

/// Returns the variables of the environment that begin as this program's do, and have no effect. Those that a cluster makes for
/// a service of this name are none of them.
pub(crate) fn unknown_variables() -> Vec<String> {
    let known = known_variables();
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<_> = names.filter(|name| is_unknown(&known, name)).collect();
    unknown.sort_unstable();
    unknown
}

fn is_unknown(known: &[String], name: &str) -> bool {
    let written = name.to_uppercase();
    let is_ours = written.starts_with("LEFTFOLD_") && !known.iter().any(|known| known == name);
    let is_of_service = written.contains("_SERVICE_HOST")
        || written.contains("_SERVICE_PORT")
        || written.contains("_PORT_")
        || written.ends_with("_PORT");
    is_ours && !is_of_service
}

fn known_variables() -> Vec<String> {
    let others = OTHER_VARIABLES.iter().map(ToString::to_string);
    Settings::ALL.iter().map(variable).chain(others).collect()
}

/// Returns the known variable that this one is a mistyped form of: other letters, small letters, dashes, another order of its
/// words, too few of them, shortened or lengthened ones, and several of these together; or one word more.
fn meant<'a>(known: &'a [String], name: &str) -> Option<&'a str> {
    if known.iter().any(|known| known == name) {
        return None;
    }
    let written = name.to_uppercase().replace(['-', '.'], "_");
    let whole = |known: &String| Some(letters_between(known, &written)).filter(is_few);
    let by_words = |known: &String| letters_between_words(known, &written);
    let added = |known: &String| {
        let word = added_word(known, &written)?;
        // Scripts have variables of their own for places and addresses; nobody has one for a setting of the server.
        let is_mistyped = match OTHER_VARIABLES.contains(&known.as_str()) {
            true => ADDED_WORDS.contains(&word),
            false => !WORDS_OF_SERVICES.contains(&word),
        };
        is_mistyped.then_some(0)
    };
    let nearest = |letters: &dyn Fn(&String) -> Option<usize>| {
        let found = known
            .iter()
            .filter_map(|known| Some((letters(known)?, known)));
        found.min().map(|(_, known)| known.as_str())
    };
    let found = nearest(&whole).or_else(|| nearest(&added));
    found.or_else(|| nearest(&by_words))
}

/// Returns the word that the written name has, wherever it stands, and the known one has not, if that is all they differ in.
fn added_word<'a>(known: &str, written: &'a str) -> Option<&'a str> {
    let (known, words): (Vec<_>, Vec<_>) =
        (known.split('_').collect(), written.split('_').collect());
    let same = known
        .iter()
        .zip(&words)
        .take_while(|(known, word)| known == word);
    let at = same.count();
    let (word, rest) = words.get(at..)?.split_first()?;
    (known.get(at..) == Some(rest) && at > 0).then_some(*word)
}

fn letters_between(known: &str, written: &str) -> usize {
    strsim::damerau_levenshtein(known, written)
}

fn is_few(letters: &usize) -> bool {
    *letters <= LETTERS_MAX
}

/// By how many letters the written words differ from as many words of the known name, in whatever order; `None`: by too many.
fn letters_between_words(known: &str, written: &str) -> Option<usize> {
    let mut left: Vec<_> = known.split('_').collect();
    let words: Vec<_> = written.split('_').filter(|word| !word.is_empty()).collect();
    // The word of the program and two more, or as many as there are: fewer say too little.
    if (words.len() <= 2 && words.len() < left.len()) || words.len() > left.len() {
        return None;
    }
    let mut letters = 0;
    for word in words {
        let distance = |known: &str| {
            let is_shortened = known.starts_with(word) && word.len() >= SHORTENED_MIN
                || has_other_ending(known, word);
            let is_lengthened = word.starts_with(known) && known.len() >= LENGTHENED_MIN;
            match is_shortened || is_lengthened {
                true => usize::from(known != word),
                false => letters_between(known, word),
            }
        };
        let nearest = left
            .iter()
            .enumerate()
            .map(|(at, known)| (distance(known), at));
        // Short words are few letters apart from any other.
        let (differ, at) = nearest
            .min()
            .filter(|(letters, _)| letters * 2 <= word.len())?;
        letters += differ;
        left.swap_remove(at);
    }
    Some(letters).filter(is_few)
}

/// Whether a word is a shorter form of the known one but for its last letter, as `AUTHN` is and `AUTHENTICATE`.
fn has_other_ending(known: &str, word: &str) -> bool {
    let stem = word.char_indices().next_back();
    let stem = stem.and_then(|(at, _)| word.get(..at)).unwrap_or_default();
    stem.len() > SHORTENED_MIN && known.starts_with(stem)
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
    fn every_variable_that_begins_as_ours_is_unknown_unless_it_is_ours_or_a_cluster_makes_it() {
        let known = known_variables();
        for name in [
            "LEFTFOLD_LOG_LEVEL",
            "leftfold_color",
            "LEFTFOLD_TLS",
            "LEFTFOLD_HOST",
        ] {
            assert!(is_unknown(&known, name), "{name}");
        }
        for name in [
            "LEFTFOLD_LISTEN",
            "LEFTFOLD_DATA",
            "LEFTFOLD_PORT",
            "LEFTFOLD_PORT_2113_TCP_ADDR",
            "LEFTFOLD_SERVICE_HOST",
            "LEFTFOLD_EU_SERVICE_PORT_HTTP",
            "LEFTFOLD",
            "PATH",
        ] {
            assert!(!is_unknown(&known, name), "{name}");
        }
    }

    #[test]
    fn a_variable_that_looks_like_a_mistyped_one_is_found_and_those_of_others_are_not() {
        let known = known_variables();
        for (name, expected) in [
            ("LEFTFOLD_LISTN", "LEFTFOLD_LISTEN"),
            ("leftfold_listen", "LEFTFOLD_LISTEN"),
            ("LEFTFOLD-LISTEN", "LEFTFOLD_LISTEN"),
            ("LEFTFLOD_LISTEN", "LEFTFOLD_LISTEN"),
            ("LEFT_FOLD_LISTEN", "LEFTFOLD_LISTEN"),
            ("LEFTFOLD_MAX_CONNECTIONS", "LEFTFOLD_CONNECTIONS_MAX"),
            ("LEFTFOLD_TLS_CERTIFICATE", "LEFTFOLD_TLS_CERTIFICATE_FILE"),
            ("LEFTFOLD_TLS_CERTIFCATE", "LEFTFOLD_TLS_CERTIFICATE_FILE"),
            ("LEFTFOLD_CERTIFICATE_TLS", "LEFTFOLD_TLS_CERTIFICATE_FILE"),
            ("leftfold-certificate-file", "LEFTFOLD_TLS_CERTIFICATE_FILE"),
            ("LEFTFOLD_TLS_CERT_FILE", "LEFTFOLD_TLS_CERTIFICATE_FILE"),
            ("LEFTFOLD_TLS_CERT", "LEFTFOLD_TLS_CERTIFICATE_FILE"),
            ("LEFTFOLD_AUTH", "LEFTFOLD_AUTHENTICATION"),
            ("LEFTFOLD_LISTENER", "LEFTFOLD_LISTEN"),
            ("LEFTFOLD_CONFIG_FILE", "LEFTFOLD_CONFIG"),
            ("LEFTFOLD_AUTHENTICATE", "LEFTFOLD_AUTHENTICATION"),
            ("LEFTFOLD_AUTHN", "LEFTFOLD_AUTHENTICATION"),
            ("LEFTFOLD_AUTHENTICATION_ENABLED", "LEFTFOLD_AUTHENTICATION"),
            ("LEFTFOLD_ENABLE_AUTHENTICATION", "LEFTFOLD_AUTHENTICATION"),
            ("LEFTFOLD_TLS_PRIVATE_KEY_FILE", "LEFTFOLD_TLS_KEY_FILE"),
            ("LEFTFOLD_SERVER_TLS_KEY_FILE", "LEFTFOLD_TLS_KEY_FILE"),
            ("LEFTFOLD_SERVER_AUTHENTICATION", "LEFTFOLD_AUTHENTICATION"),
            (
                "LEFTFOLD_TLS_SERVER_CERTIFICATE_FILE",
                "LEFTFOLD_TLS_CERTIFICATE_FILE",
            ),
            ("LEFTFOLD_LISTEN_ADDRESS", "LEFTFOLD_LISTEN"),
            ("LEFTFOLD_JWT_ISSUER_URL", "LEFTFOLD_JWT_ISSUER"),
            ("LEFTFOLD_TLS_KEY_FILE_PATH", "LEFTFOLD_TLS_KEY_FILE"),
            ("leftfold-jwt-issuer-file", "LEFTFOLD_JWT_ISSUER"),
            (
                "LEFTFOLD_TLS_CERTIFICATES_FILENAME",
                "LEFTFOLD_TLS_CERTIFICATE_FILE",
            ),
        ] {
            assert_eq!(meant(&known, name), Some(expected), "{name}");
        }
        for name in [
            "LEFTFOLD_LISTEN",
            "LEFTFOLD_PORT",
            "LEFTFOLD_HOST",
            "LEFTFOLD_HOME",
            "LEFTFOLD_NAME",
            "LEFTFOLD_VERSION",
            "LEFTFOLD_IMAGE",
            "LEFTFOLD_SERVICE_HOST",
            "LEFTFOLD_SERVICE_PORT_HTTP",
            "LEFTFOLD_PORT_2113_TCP_ADDR",
            "LEFTFOLD_PORT_443_TCP_PROTO",
            "LEFTFOLD_LOG_LEVEL",
            "LEFTFOLD_LISTEN_PORT",
            "LEFTFOLD_DATA_PORT",
            "LEFTFOLD_DATA_NAME",
            "LEFTFOLD_DATA_SERVICE_HOST",
            "LEFTFOLD_DATA_BACKUP",
            "LEFTFOLD_URL_PREFIX",
            "LEFTFOLD_TLS",
            "LISTEN",
            "PATH",
        ] {
            assert_eq!(meant(&known, name), None, "{name}");
        }
    }
}
