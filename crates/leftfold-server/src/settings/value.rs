//! Types of settings, and the text form of their values.
//!
//! **Owns:** [`SettingValue`], [`ByteSize`], [`HostName`], [`HostList`], [`GroupNames`], [`LogFormat`], [`SettingError`].
//! **Does not know:** which settings exist.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Why a setting was not set.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingError {
    /// There is no setting of this name.
    #[error("unknown setting {name}; `leftfold serve --print-settings` lists all")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The value is invalid for the setting.
    #[error("invalid {name} {value:?}: expected {expected}")]
    Value {
        /// The setting.
        name: String,
        /// The invalid value.
        value: String,
        /// What is expected.
        expected: &'static str,
    },
    /// The value is too small for a server to work.
    #[error("{name} too small: {value}; expected at least {min} (bytes, milliseconds or a count)")]
    TooSmall {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least that works.
        min: u64,
    },
    /// The setting would have no effect, because authentication is off.
    #[error(
        "{name} is set, and authentication is off; set `authentication` to on, or leave {name} empty"
    )]
    AuthenticationOff {
        /// The setting.
        name: &'static str,
    },
    /// The text is not TOML.
    #[error("invalid settings file: {reason}")]
    Syntax {
        /// What is wrong with it.
        reason: String,
    },
}

/// The format of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// One line for each event.
    Text,
    /// One JSON object for each event.
    Json,
}

/// Whether requests must say who they are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthenticationMode {
    /// If connections are encrypted.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl SettingValue for AuthenticationMode {
    const NAME: &'static str = "auto, on or off";
    fn read(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "on" => Some(Self::On),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// What a read of several streams gives of those that the caller may not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestrictedReads {
    /// The events that the caller may read.
    Filter,
    /// Nothing: the read is denied.
    Refuse,
}

impl SettingValue for RestrictedReads {
    const NAME: &'static str = "filter or refuse";
    fn read(text: &str) -> Option<Self> {
        match text {
            "filter" => Some(Self::Filter),
            "refuse" => Some(Self::Refuse),
            _ => None,
        }
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Returns the number of bytes as a length in memory.
    #[must_use]
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Returns whether it is zero.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A type of settings.
pub(super) trait SettingValue: Sized {
    /// Its name in messages.
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

/// Parses a default.
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

/// A host name or an IP address, without a port; or none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostName(String);

impl HostName {
    /// Returns the name; empty if there is none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl SettingValue for HostName {
    const NAME: &'static str = "a host name or an IP address, without a port";
    fn read(text: &str) -> Option<Self> {
        let is_host = is_host_name(text) || text.parse::<IpAddr>().is_ok();
        (text.is_empty() || is_host).then(|| Self(text.to_owned()))
    }
}

/// Returns whether a text is a host name, or a domain that begins with a dot. No client could look another text up.
fn is_host_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text != "." && !text.is_empty() && text.len() <= 254 && text.bytes().all(is_plain)
}

/// Host names, and domains with all their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostList(Vec<String>);

impl HostList {
    /// Returns whether the list contains this name or a domain above it, ignoring case.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        self.0.iter().any(|entry| {
            let end = host.len().checked_sub(entry.len());
            let end = end.and_then(|at| host.get(at..));
            let matches = end.is_some_and(|end| end.eq_ignore_ascii_case(entry));
            matches && (entry.starts_with('.') || host.len() == entry.len())
        })
    }
}

impl SettingValue for HostList {
    const NAME: &'static str = "host names separated by commas, without ports";
    fn read(text: &str) -> Option<Self> {
        let entries = text
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        let entries: Vec<String> = entries.map(str::to_owned).collect();
        entries
            .iter()
            .all(|entry| is_host_name(entry))
            .then_some(Self(entries))
    }
}

/// Names of groups, as an issuer of tokens has them and as this server has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupNames(Vec<(String, String)>);

impl GroupNames {
    /// Returns the name in this server of a group of the issuer, if the settings give it one.
    #[must_use]
    pub fn group(&self, of_issuer: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(theirs, _)| theirs == of_issuer);
        pair.map(|(_, ours)| ours.as_str())
    }
}

impl SettingValue for GroupNames {
    const NAME: &'static str = "pairs GROUP_OF_ISSUER=GROUP separated by commas";
    fn read(text: &str) -> Option<Self> {
        let pairs = text.split(',').map(str::trim);
        let pairs = pairs.filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            // The name of the issuer may be a path or an address; ours has no equals sign.
            let (theirs, ours) = pair.rsplit_once('=')?;
            let (theirs, ours) = (theirs.trim(), ours.trim());
            (!theirs.is_empty() && !ours.is_empty()).then(|| (theirs.to_owned(), ours.to_owned()))
        });
        pairs.collect::<Option<_>>().map(Self)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_an_issuer_get_the_names_that_are_given() {
        let names = GroupNames::read("platform=$admins, /eu/a=b = $ops").unwrap();
        assert_eq!(names.group("platform"), Some("$admins"));
        assert_eq!(names.group("/eu/a=b"), Some("$ops"));
        assert_eq!(names.group("shop"), None);
        for wrong in ["platform", "=a", "a=", "a=b,c"] {
            assert_eq!(GroupNames::read(wrong), None, "{wrong}");
        }
        assert_eq!(GroupNames::read(""), Some(GroupNames::default()));
    }

    #[test]
    fn a_name_that_clients_could_not_look_up_is_no_host_name() {
        for host in [
            "",
            "events.example",
            "localhost",
            "192.0.2.7",
            "2001:db8::1",
        ] {
            assert_eq!(
                HostName::read(host).as_ref().map(HostName::as_str),
                Some(host)
            );
        }
        let long = "a".repeat(255);
        for wrong in [
            "a b",
            "events.example:2113",
            "http://a",
            "[::1]",
            ".",
            "a\n",
            &long,
        ] {
            assert_eq!(HostName::read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_host_is_allowed_by_its_name_or_by_a_domain_above_it() {
        let hosts = HostList::read("events.example, .svc.cluster.local").unwrap();
        for host in [
            "events.example",
            "EVENTS.Example",
            "leftfold.default.svc.cluster.local",
        ] {
            assert!(hosts.allows(host), "{host}");
        }
        for host in [
            "",
            "x.events.example",
            "evil-events.example",
            "svc.cluster.local",
            "example",
        ] {
            assert!(!hosts.allows(host), "{host}");
        }
        assert!(!HostList::default().allows(""));
        assert_eq!(HostList::read("a:80"), None);
        assert_eq!(HostList::read("http://a"), None);
    }
}
