//! The address of a server.
//!
//! **Owns:** the form `leftfold://host:port?tls=true&tlsCaFile=FILE`. **Does not know:** connections.
//! **Invariants:** any other form is an error that quotes it; nothing is guessed.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use tonic::transport::Uri;

use crate::ConnectError;

const SCHEME: &str = "leftfold";
/// The port that a server listens on by default.
const PORT: u16 = 2113;

/// Host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
    tls: Option<Tls>,
    /// Whether it says `tls=false`.
    is_plain_on_purpose: bool,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tls {
    /// The file with the authorities that are trusted; `None`: those that the system trusts.
    pub(crate) ca_file: Option<PathBuf>,
}

impl Address {
    /// The address as the HTTP library takes it.
    pub(crate) fn http(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Whether nobody but this machine reads what is sent, or the address says that others may.
    pub(crate) fn may_take_credentials(&self) -> bool {
        self.tls.is_some() || self.is_plain_on_purpose || self.is_loopback()
    }

    fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// How the connection is encrypted, if it is.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}://{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = ConnectError;

    fn from_str(text: &str) -> Result<Self, ConnectError> {
        let refused = |reason| ConnectError::Address {
            // Whatever stands before an `@` may be a secret.
            given: text.rsplit('@').next().unwrap_or_default().to_owned(),
            reason,
        };
        let uri: Uri = text
            .parse()
            .map_err(|_| refused("it is not of the form leftfold://host:port"))?;
        if uri.scheme_str() != Some(SCHEME) {
            return Err(refused("it does not begin with leftfold://"));
        }
        let authority = uri
            .authority()
            .filter(|authority| !authority.host().is_empty())
            .ok_or_else(|| refused("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused(
                "credentials stand in the options of the client, not in the address",
            ));
        }
        if !matches!(uri.path(), "" | "/") {
            return Err(refused("nothing but ?tls=... may follow the port"));
        }
        let (tls, is_plain_on_purpose) = tls(uri.query()).map_err(refused)?;
        let after_host = authority.as_str().get(authority.host().len()..);
        let port = match (authority.port_u16(), after_host) {
            (Some(port), _) if port > 0 => port,
            (None, Some("")) => PORT,
            _ => return Err(refused("its port is not a number from 1 to 65535")),
        };
        Ok(Self {
            host: authority.host().to_owned(),
            port,
            tls,
            is_plain_on_purpose,
        })
    }
}

/// Reads what stands behind the question mark: how the connection is encrypted, and whether it says that it is not.
fn tls(query: Option<&str>) -> Result<(Option<Tls>, bool), &'static str> {
    let (mut on, mut ca_file) = (None, None);
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        match pair.split_once('=') {
            Some(("tls", "true")) if on.is_none() => on = Some(true),
            Some(("tls", "false")) if on.is_none() => on = Some(false),
            Some(("tlsCaFile", file)) if ca_file.is_none() && !file.is_empty() => {
                ca_file = Some(PathBuf::from(file));
            }
            _ => {
                return Err(
                    "nothing but ?tls=true, ?tls=false and &tlsCaFile=FILE may follow the port",
                );
            }
        }
    }
    match (on, ca_file) {
        (Some(true), ca_file) => Ok((Some(Tls { ca_file }), false)),
        (on, None) => Ok((None, on.is_some())),
        (_, Some(_)) => Err("tlsCaFile may follow tls=true only"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let address: Result<Address, _> = text.parse();
        address
            .map(|address| address.http())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn hosts_with_and_without_a_port_are_understood() {
        for (text, http) in [
            ("leftfold://localhost:2113", "http://localhost:2113"),
            ("leftfold://127.0.0.1:80/", "http://127.0.0.1:80"),
            ("leftfold://events.example", "http://events.example:2113"),
            ("leftfold://[::1]:9", "http://[::1]:9"),
            ("leftfold://a:1?tls=false", "http://a:1"),
            ("leftfold://a:1?tls=true", "https://a:1"),
            (
                "leftfold://a:1/?tls=true&tlsCaFile=certs/ca.crt",
                "https://a:1",
            ),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(http), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_address_and_the_reason() {
        for (text, reason) in [
            ("", "form"),
            ("localhost:2113", "begin"),
            ("http://localhost:2113", "begin"),
            ("kurrentdb://localhost:2113?tls=false", "begin"),
            ("leftfold://", "form"),
            ("leftfold://:2113", "host"),
            ("leftfold://a:2113/b", "follow"),
            ("leftfold://a:2113?b=c", "follow"),
            ("leftfold://a:2113?tls=yes", "follow"),
            ("leftfold://a:2113?tls=true&tls=true", "follow"),
            ("leftfold://a:2113?tlsCaFile=ca.crt", "follow"),
            ("leftfold://a:0", "port"),
            ("leftfold://a:70000", "port"),
            ("leftfold://a b:1", "form"),
        ] {
            let refused = parsed(text).unwrap_err();
            assert!(refused.contains(text), "{refused}");
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn credentials_go_to_other_machines_only_encrypted_or_on_purpose() {
        for (text, may_take_credentials) in [
            ("leftfold://localhost:1", true),
            ("leftfold://127.9.9.9", true),
            ("leftfold://[::1]:1", true),
            ("leftfold://[::ffff:127.0.0.1]:1", true),
            ("leftfold://events.example", false),
            ("leftfold://localhost.example", false),
            ("leftfold://10.0.0.1", false),
            ("leftfold://events.example?tls=true", true),
            ("leftfold://events.example?tls=false", true),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(
                address.may_take_credentials(),
                may_take_credentials,
                "{text}"
            );
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        let refused = parsed("leftfold://ann:hunter2@a:1").unwrap_err();
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}
