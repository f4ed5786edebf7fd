//! Settings: one definition, from which flags, environment, file and documentation follow.
//!
//! **Owns:** [`Settings`], its defaults and texts. **Does not know:** command lines, where the file is.
//! **Invariants:** every setting has a default that is safe on an open network; an invalid value is an error that names the
//! setting, the value and what is expected; an unknown setting is an error too.

mod value;

use std::{net::SocketAddr, time::Duration};

use self::value::SettingValue;
pub use self::value::{
    AuthenticationMode, ByteSize, GroupNames, HostList, HostName, LogFormat, RestrictedReads,
    SettingError,
};

/// A setting, with its documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Its name in files. With dashes it is the flag; in capitals, prefixed with `LEFTFOLD_`, the environment variable.
    pub name: &'static str,
    /// The kind of its value.
    pub kind: &'static str,
    /// Its default.
    pub default: &'static str,
    /// What it means.
    pub help: &'static str,
}

impl Setting {
    /// Returns whether it is a switch.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        self.kind == bool::NAME
    }
}

macro_rules! settings {
    ($($(#[doc = $help:literal])+ $name:ident: $type:ty = $default:literal,)+) => {
        /// The settings of a server.
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
            /// [`SettingError`]: the setting is unknown, or the value is invalid.
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

/// Minimum for the headers of a request: the reader of HTTP/1 does not bound less.
const HEADERS_BYTES_MIN: u64 = 8 * 1024;
/// Minimum for messages: smaller ones could not hold an event.
const MESSAGE_BYTES_MIN: u64 = 4 * 1024;
/// Minimum for timeouts: shorter ones would end healthy connections.
const TIME_MILLIS_MIN: u64 = 10;

settings! {
    /// Address and port to listen on. Port 0 takes any free port.
    listen: SocketAddr = "127.0.0.1:2113",
    /// Listen on addresses that other machines reach without TLS or without authentication, and take plain text there.
    insecure: bool = "false",
    /// File with the server's certificate and those of its issuers, PEM. It turns TLS on; read again on SIGHUP and when it
    /// changes.
    tls_certificate_file: String = "",
    /// File with the private key of the certificate, PEM.
    tls_key_file: String = "",
    /// File with the certificates of the authority that client certificates must be issued by, PEM. A client whose verified
    /// certificate has the common name of a user is that user. Empty: client certificates are not asked for.
    tls_client_ca_file: String = "",
    /// End connections over TLS whose client shows no certificate.
    tls_client_certificate_required: bool = "false",
    /// Maximum number of TLS handshakes at a time. Further connections wait, within `tls_handshake_timeout`.
    tls_handshakes_max: usize = "64",
    /// Timeout for a TLS handshake.
    tls_handshake_timeout: Duration = "10s",
    /// Whether every request needs credentials of a user or a key: on, off, or auto, which is on if TLS is.
    authentication: AuthenticationMode = "auto",
    /// File with the password of the first administrator, `admin`, who is created if the store has no user. Empty: the
    /// password is made at random and printed once.
    admin_password_file: String = "",
    /// Issuer whose JSON Web Tokens are taken as bearer credentials: the `iss` of a token, and the address below which the issuer
    /// describes itself (OpenID Connect Discovery). Empty: no tokens are taken.
    jwt_issuer: String = "",
    /// Audience that a token must be meant for: one of its `aud`. Needed with `jwt_issuer`.
    jwt_audience: String = "",
    /// File with the public keys of the issuer, a JSON Web Key Set; read again when it changes. Empty: the keys are fetched.
    jwt_keys_file: String = "",
    /// Address of the public keys of the issuer: https, or http on a loopback address. Empty: the `jwks_uri` of the issuer.
    jwt_keys_url: String = "",
    /// Claim with the name of the user, or a JSON pointer to it. Choose one that users cannot change.
    jwt_user_claim: String = "sub",
    /// Claim with the groups of the user, a list or a text with spaces between them, or a JSON pointer to it.
    jwt_groups_claim: String = "groups",
    /// Groups of tokens that have another name in this server, as in `platform=$admins,sre=$ops`. A token gives no other group
    /// that begins with `$`.
    jwt_group_names: GroupNames = "",
    /// Difference between the clocks of issuer and server at which tokens are still taken, 5 minutes at most.
    jwt_clock_skew: Duration = "30s",
    /// What a read of the log, a category or a query gives of events that the caller may not read: filter leaves them out,
    /// refuse denies the read unless the caller may read every stream.
    restricted_reads: RestrictedReads = "filter",
    /// Host name of this server that gossip, and servers that do not act for a group, tell clients. Empty: the name they used.
    advertised_host: HostName = "",
    /// Host names that HTTP requests may use, separated by commas, beside IP addresses, `localhost`, names without dots and
    /// `advertised_host`. An entry that begins with a dot allows every name below it, as in `.svc.cluster.local`.
    allowed_hosts: HostList = "",
    /// Maximum number of open connections. Lowered at start to what the limit of file descriptors leaves.
    connections_max: usize = "4096",
    /// Maximum number of open connections from one address; of IPv6, from one /64.
    connections_per_address_max: usize = "2048",
    /// Maximum number of concurrent calls on one connection (HTTP/2 MAX_CONCURRENT_STREAMS).
    concurrent_calls_per_connection_max: u32 = "1024",
    /// Maximum size of the headers of one request.
    headers_bytes_max: ByteSize = "16KiB",
    /// Maximum size of one message of a request.
    message_bytes_max: ByteSize = "16MiB",
    /// Maximum memory of all requests together, from the first byte received until each is executed. At least twice
    /// `message_bytes_max`. One connection may use three quarters of it, one address seven eighths.
    in_flight_bytes_max: ByteSize = "128MiB",
    /// Maximum memory of all responses together that clients have not received yet. One connection may use a quarter of it, and
    /// always 16 KiB. At least `message_bytes_max`.
    response_bytes_max: ByteSize = "128MiB",
    /// Timeout for the first bytes of a connection, and for the headers of a request.
    header_read_timeout: Duration = "10s",
    /// Timeout for calls with one response, from the arrival of their headers. Longer client deadlines are capped to it;
    /// streaming reads and subscriptions are exempt.
    request_timeout: Duration = "30s",
    /// Timeout for an HTTP/1.1 client that reads nothing of a response; its connection is closed. While `response_bytes_max`
    /// is used up, any connection whose client reads nothing is closed after a second.
    write_timeout: Duration = "30s",
    /// Interval between keep-alive pings on an idle connection.
    keepalive_interval: Duration = "10s",
    /// Timeout for the response to a keep-alive ping.
    keepalive_timeout: Duration = "10s",
    /// Maximum age of a connection; older ones are closed gracefully, so that clients spread over servers. 0s: no limit.
    connection_age_max: Duration = "0s",
    /// Timeout for calls in flight on a connection that reached `connection_age_max`.
    connection_age_grace: Duration = "10s",
    /// Time after a signal to end in which the server still takes requests and says that it is not ready, so that load balancers
    /// send it no more. 0s: it stops at once.
    shutdown_delay: Duration = "0s",
    /// Timeout for calls in flight after a shutdown began.
    shutdown_timeout: Duration = "10s",
    /// Maximum number of events in a page of an HTTP response.
    page_events_max: u32 = "1000",
    /// Log level: error, warn, info, debug or trace; also by module, as in `info,leftfold_server=debug`.
    log_filter: String = "info",
    /// Format of logs on standard error.
    log_format: LogFormat = "text",
    /// Duration of a call until its response begins, from which on it is logged with method, principal, peer and duration under
    /// the target `slow_call`; ten at once and one more per second at most. 0s: none is logged.
    slow_call_threshold: Duration = "1s",
    /// OTLP endpoint over gRPC for traces, as in `http://127.0.0.1:4317`. Empty: no traces.
    otlp_endpoint: String = "",
    /// Maximum rate at which a scavenge reads and writes, in bytes per second. 0: no limit.
    scavenge_bytes_per_second: ByteSize = "0",
}

impl Settings {
    /// Checks that a server can work with these settings together.
    ///
    /// # Errors
    /// [`SettingError::TooSmall`] for the first one that is too small.
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
                "concurrent_calls_per_connection_max",
                self.concurrent_calls_per_connection_max.into(),
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
                self.message_bytes_max.0.saturating_mul(2),
            ),
            (
                "response_bytes_max",
                self.response_bytes_max.0,
                self.message_bytes_max.0,
            ),
            ("page_events_max", self.page_events_max.into(), 1),
            ("tls_handshakes_max", narrow(self.tls_handshakes_max), 1),
        ];
        let times = [
            ("header_read_timeout", self.header_read_timeout),
            ("request_timeout", self.request_timeout),
            ("tls_handshake_timeout", self.tls_handshake_timeout),
            ("write_timeout", self.write_timeout),
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
        if !self.admin_password_file.is_empty() && !self.authenticates() {
            return Err(SettingError::AuthenticationOff {
                name: "admin_password_file",
            });
        }
        Ok(())
    }

    /// Whether requests must say who they are from.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        match self.authentication {
            AuthenticationMode::On => true,
            AuthenticationMode::Off => false,
            AuthenticationMode::Auto => !self.tls_certificate_file.is_empty(),
        }
    }

    /// Sets settings from a TOML text.
    ///
    /// # Errors
    /// [`SettingError`]: not TOML, an unknown setting, or an invalid value.
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
                 message_bytes_max = \"1MiB\"\nrequest_timeout = \"1500ms\"",
            )
            .unwrap();
        assert_eq!(settings.listen.port(), 0);
        assert_eq!(settings.connections_max, 7);
        assert_eq!(settings.message_bytes_max, ByteSize(1024 * 1024));
        assert_eq!(settings.request_timeout, Duration::from_millis(1500));
        assert_eq!(settings.headers_bytes_max, ByteSize(16 * 1024));
    }

    #[test]
    fn a_mistake_is_answered_with_name_and_value() {
        let mut settings = Settings::default();
        let error = settings.set("conections_max", "7").unwrap_err();
        assert!(error.to_string().contains("conections_max"), "{error}");
        let error = settings.set("request_timeout", "soon").unwrap_err();
        assert!(error.to_string().contains("request_timeout"), "{error}");
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
        refused("request_timeout", "0s");
        refused("keepalive_interval", "0s");
        refused("connections_max", "0");
        refused("page_events_max", "0");
        refused("in_flight_bytes_max", "31MiB");
        refused("headers_bytes_max", "1KiB");
        Settings::default().check().unwrap();
    }
}
