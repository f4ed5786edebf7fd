//! Settings: one definition, from which flags, environment, file and documentation follow.
//!
//! **Owns:** [`Settings`], its defaults and texts. **Does not know:** command lines, where the file is.
//! **Invariants:** every setting has a default that is safe on an open network; a value that is not understood is an error
//! that names setting, value and what would be right; an unknown setting is an error too.

mod value;

use std::{net::SocketAddr, time::Duration};

pub use self::value::SettingError;
use self::value::SettingValue;

/// One setting, as it is shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Its name, in files; with dashes it is the flag, in capitals behind `LEFTFOLD_` the environment variable.
    pub name: &'static str,
    /// What kind of value it takes.
    pub kind: &'static str,
    /// The value it has unless it is set.
    pub default: &'static str,
    /// What it means.
    pub help: &'static str,
}

impl Setting {
    /// Whether it is on or off.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        self.kind == bool::NAME
    }
}

macro_rules! settings {
    ($($(#[doc = $help:literal])+ $name:ident: $type:ty = $default:literal,)+) => {
        /// How a server behaves: where it listens, and what it grants.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Settings {
            $($(#[doc = $help])+ pub $name: $type,)+
        }

        impl Settings {
            /// All settings, in the order in which they are documented.
            pub const ALL: &[Setting] = &[$(Setting {
                name: stringify!($name),
                kind: <$type as SettingValue>::NAME,
                default: $default,
                help: concat!($($help),+),
            },)+];

            /// Sets one setting by its name.
            ///
            /// # Errors
            /// [`SettingError`]: there is no such setting, or the value is not one of its kind.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
                match name {
                    $(stringify!($name) => self.$name = value::parse(name, value)?,)+
                    _ => return Err(SettingError::Unknown { name: name.to_owned() }),
                }
                Ok(())
            }
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: value::of_default(stringify!($name), $default),)+ }
            }
        }
    };
}

/// A request's headers need so much: less is not bounded by HTTP/1's reader.
const HEADERS_BYTES_MIN: u64 = 8 * 1024;
/// Smaller messages would leave no room for an event.
const MESSAGE_BYTES_MIN: u64 = 4 * 1024;
/// Shorter times end connections of which nothing is wrong.
const TIME_MILLIS_MIN: u64 = 10;

settings! {
    /// Where to listen, address and port; port 0 takes any that is free.
    listen: SocketAddr = "127.0.0.1:2113",
    /// Listen on addresses that other machines reach although nothing is encrypted and nobody is asked who they are.
    insecure: bool = "false",
    /// The host that clients are told to connect to; empty: the address they came by.
    advertised_host: String = "",
    /// How many connections may be open.
    connections_max: usize = "4096",
    /// How many connections may be open from one address.
    connections_per_address_max: usize = "2048",
    /// How many calls may run on one connection.
    streams_per_connection_max: u32 = "1024",
    /// The size of one request's headers.
    headers_bytes_max: ByteSize = "16KiB",
    /// The size of one message of a request.
    message_bytes_max: ByteSize = "16MiB",
    /// The size of all requests that are being received, of all clients together, and once more of those that come in
    /// several messages. Not less than `message_bytes_max`.
    in_flight_bytes_max: ByteSize = "128MiB",
    /// How long a client may take to say what it wants after it connected, and for the headers of a request.
    handshake_timeout: Duration = "10s",
    /// How long one call may take that is neither a stream of events nor a subscription; what a client asks for is cut to this.
    call_timeout: Duration = "30s",
    /// How often a silent connection is asked whether it is still there.
    keepalive_interval: Duration = "10s",
    /// How long it may take to answer that.
    keepalive_timeout: Duration = "10s",
    /// How long a connection may be used before its client is told to open another, which spreads clients anew; what runs on it
    /// may go on for `shutdown_timeout`. 0s: as long as it likes.
    connection_age_max: Duration = "0s",
    /// How long calls under way may go on after the server was told to stop.
    shutdown_timeout: Duration = "10s",
    /// How many events a page of an HTTP answer may have.
    page_events_max: u32 = "1000",
    /// What is logged: error, warn, info, debug or trace; also by part, as in `info,leftfold_server=debug`.
    log: String = "info",
    /// How logs are written to standard error.
    log_format: LogFormat = "text",
    /// Where traces are sent by OTLP over gRPC, as in `http://127.0.0.1:4317`; empty: nowhere.
    otlp_endpoint: String = "",
    /// How many bytes per second a scavenge may read and write; 0: as many as it can.
    scavenge_bytes_per_second: ByteSize = "0",
}

impl Settings {
    /// Whether a server can work with these settings together.
    ///
    /// # Errors
    /// [`SettingError::TooSmall`] for the first one with a value that would stop it.
    pub fn check(&self) -> Result<(), SettingError> {
        let narrow = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let numbers = [
            ("connections_max", narrow(self.connections_max), 1),
            (
                "connections_per_address_max",
                narrow(self.connections_per_address_max),
                1,
            ),
            (
                "streams_per_connection_max",
                self.streams_per_connection_max.into(),
                1,
            ),
            (
                "headers_bytes_max",
                self.headers_bytes_max.0,
                HEADERS_BYTES_MIN,
            ),
            (
                "message_bytes_max",
                self.message_bytes_max.0,
                MESSAGE_BYTES_MIN,
            ),
            (
                "in_flight_bytes_max",
                self.in_flight_bytes_max.0,
                self.message_bytes_max.0,
            ),
            ("page_events_max", self.page_events_max.into(), 1),
        ];
        let times = [
            ("handshake_timeout", self.handshake_timeout),
            ("call_timeout", self.call_timeout),
            ("keepalive_interval", self.keepalive_interval),
            ("keepalive_timeout", self.keepalive_timeout),
        ];
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let times = times.map(|(name, time)| (name, millis(time), TIME_MILLIS_MIN));
        for (name, value, min) in numbers.into_iter().chain(times) {
            if value < min {
                return Err(SettingError::TooSmall { name, value, min });
            }
        }
        Ok(())
    }

    /// Sets what a TOML text says, a table of settings.
    ///
    /// # Errors
    /// [`SettingError`]: not TOML, an unknown setting, or a value that is not one of its kind.
    pub fn set_from_toml(&mut self, text: &str) -> Result<(), SettingError> {
        let table: toml::Table = toml::from_str(text).map_err(|error| SettingError::Syntax {
            reason: error.to_string(),
        })?;
        for (name, value) in table {
            let text = match value {
                toml::Value::String(text) => text,
                other => other.to_string(),
            };
            self.set(&name, &text)?;
        }
        Ok(())
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// One line each, for people.
    Text,
    /// One JSON object each, for machines.
    Json,
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// As a length in memory.
    #[must_use]
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whether it is none at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_setting() {
        let mut settings = Settings::default();
        for setting in Settings::ALL {
            settings.set(setting.name, setting.default).unwrap();
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn a_file_sets_what_it_names_and_leaves_the_rest() {
        let mut settings = Settings::default();
        settings
            .set_from_toml(
                "listen = \"127.0.0.1:0\"\nconnections_max = 7\n\
                 message_bytes_max = \"1MiB\"\ncall_timeout = \"1500ms\"",
            )
            .unwrap();
        assert_eq!(settings.listen.port(), 0);
        assert_eq!(settings.connections_max, 7);
        assert_eq!(settings.message_bytes_max, ByteSize(1024 * 1024));
        assert_eq!(settings.call_timeout, Duration::from_millis(1500));
        assert_eq!(settings.headers_bytes_max, ByteSize(16 * 1024));
    }

    #[test]
    fn a_mistake_is_answered_with_name_and_value() {
        let mut settings = Settings::default();
        let error = settings.set("conections_max", "7").unwrap_err();
        assert!(error.to_string().contains("conections_max"), "{error}");
        let error = settings.set("call_timeout", "soon").unwrap_err();
        assert!(error.to_string().contains("call_timeout"), "{error}");
        assert!(error.to_string().contains("soon"), "{error}");
        assert!(settings.set_from_toml("listen = ").is_err());
    }

    #[test]
    fn values_with_which_nothing_would_work_are_refused_by_name() {
        let refused = |name: &str, value: &str| {
            let mut settings = Settings::default();
            let refused = settings.set(name, value).and_then(|()| settings.check());
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        };
        refused("call_timeout", "0s");
        refused("keepalive_interval", "0s");
        refused("connections_max", "0");
        refused("page_events_max", "0");
        refused("in_flight_bytes_max", "1MiB");
        refused("headers_bytes_max", "1KiB");
        Settings::default().check().unwrap();
    }
}
