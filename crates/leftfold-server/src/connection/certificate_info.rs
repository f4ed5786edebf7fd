//! What the certificates that the settings name say, for people who check an installation.
//!
//! **Owns:** [`CertificateInfo`]. **Does not know:** handshakes; whether a certificate can be used is tried by `tls`.
//! **Invariants:** private keys are not read here.

use std::{net::IpAddr, path::PathBuf};

use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::tls::{self, TlsError};
use crate::Settings;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The setting that names its file.
    pub setting: &'static str,
    /// The file.
    pub file: PathBuf,
    /// Whom it is for.
    pub subject: String,
    /// Since when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
    /// The host names and IP addresses that it is for.
    pub hosts: Vec<String>,
}

impl CertificateInfo {
    /// Whether the certificate is for a host: a name, with a wildcard for its first part or without, or an IP address.
    ///
    /// ```
    /// # use leftfold_server::{CertificateInfo, Settings};
    /// assert!(CertificateInfo::of_settings(&Settings::default())?.is_empty(), "no TLS, no certificates");
    /// # Ok::<(), leftfold_server::TlsError>(())
    /// ```
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']);
        self.hosts.iter().any(|named| {
            let wildcard = named
                .strip_prefix("*.")
                .zip(host.split_once('.'))
                .is_some_and(|(base, (_, rest))| base.eq_ignore_ascii_case(rest));
            wildcard || named.eq_ignore_ascii_case(host)
        })
    }

    /// Reads the certificates that the settings name: the server's chain, its own first, and the authorities of clients.
    ///
    /// # Errors
    /// [`TlsError`]: a file cannot be read or holds something else, or certificate and key cannot be used together.
    pub fn of_settings(settings: &Settings) -> Result<Vec<Self>, TlsError> {
        // Whatever keeps a server from using them is an error here too.
        if tls::TlsServer::from_settings(settings)?.is_none() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for (setting, file) in [
            ("tls_certificate_file", &settings.tls_certificate_file),
            ("tls_client_ca_file", &settings.tls_client_ca_file),
        ] {
            if !file.is_empty() {
                let file = PathBuf::from(file);
                for der in tls::read_certificates(setting, &file)? {
                    found.extend(Self::of(setting, &file, &der));
                }
            }
        }
        Ok(found)
    }

    /// `None`: rustls takes it, and this parser does not.
    fn of(setting: &'static str, file: &std::path::Path, der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.as_slice());
        Some(Self {
            setting,
            file: file.to_owned(),
            subject: certificate.subject().to_string(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            hosts: names.unwrap_or_default().iter().filter_map(host).collect(),
        })
    }
}

/// The host that a name is; `None` if it is something else.
fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let address = match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
                16 => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
                _ => None,
            };
            address.map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_the_hosts_that_it_names() {
        let info = CertificateInfo {
            setting: "tls_certificate_file",
            file: PathBuf::new(),
            subject: String::new(),
            not_before: 0,
            not_after: 0,
            hosts: ["events.example", "*.shop.example", "10.0.0.7", "::1"]
                .map(str::to_owned)
                .into(),
        };
        for host in [
            "events.example",
            "EVENTS.example",
            "a.shop.example",
            "10.0.0.7",
            "[::1]",
        ] {
            assert!(info.is_for(host), "{host}");
        }
        for host in ["shop.example", "a.b.shop.example", "events", "10.0.0.70"] {
            assert!(!info.is_for(host), "{host}");
        }
    }
}
