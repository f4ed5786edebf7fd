//! Kinds of settings, and how their values are written.
//!
//! **Owns:** [`SettingValue`], [`SettingError`]. **Does not know:** which settings there are.

use std::{net::SocketAddr, time::Duration};

use super::{ByteSize, LogFormat};

/// Why a setting was not set.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingError {
    /// There is no setting of this name.
    #[error("there is no setting {name}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The value is not one of the setting's kind.
    #[error("{name} cannot be {value:?}: expected {expected}")]
    Value {
        /// The setting.
        name: String,
        /// What was to be its value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A server cannot work with so little.
    #[error("{name} cannot be {value}: expected at least {min} (bytes, milliseconds or a count)")]
    TooSmall {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least that works.
        min: u64,
    },
    /// The text is not TOML.
    #[error("not a settings file: {reason}")]
    Syntax {
        /// What is wrong with it.
        reason: String,
    },
}

/// A type that settings have.
pub(super) trait SettingValue: Sized {
    /// What people call it.
    const NAME: &'static str;
    fn read(text: &str) -> Option<Self>;
}

pub(super) fn parse<K: SettingValue>(name: &str, text: &str) -> Result<K, SettingError> {
    K::read(text).ok_or_else(|| SettingError::Value {
        name: name.to_owned(),
        value: text.to_owned(),
        expected: K::NAME,
    })
}

/// The value of a default.
#[expect(clippy::panic, reason = "a test reads every default")]
pub(super) fn of_default<K: SettingValue>(name: &str, text: &str) -> K {
    parse(name, text).unwrap_or_else(|error| panic!("{error}"))
}

impl SettingValue for SocketAddr {
    const NAME: &'static str = "address:port";
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl SettingValue for bool {
    const NAME: &'static str = "true or false";
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl SettingValue for String {
    const NAME: &'static str = "text";
    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl SettingValue for LogFormat {
    const NAME: &'static str = "text or json";
    fn read(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl SettingValue for u32 {
    const NAME: &'static str = "a number from 1";
    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number| *number > 0)
    }
}

impl SettingValue for usize {
    const NAME: &'static str = "a number from 1";
    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number| *number > 0)
    }
}

impl SettingValue for ByteSize {
    const NAME: &'static str = "a number of bytes, as in 4096, 16KiB, 16MiB or 1GiB";
    fn read(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_mul(unit).map(ByteSize)
    }
}

impl SettingValue for Duration {
    const NAME: &'static str = "a time, as in 250ms, 10s, 5m or 2h";
    fn read(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: u64 = digits.parse().ok()?;
        let millis = match &text[digits.len()..] {
            "ms" => number,
            "s" => number.checked_mul(1000)?,
            "m" => number.checked_mul(60_000)?,
            "h" => number.checked_mul(3_600_000)?,
            _ => return None,
        };
        Some(Self::from_millis(millis))
    }
}
