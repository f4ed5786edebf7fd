//! Authorities and certificates for one test.
//!
//! **Owns:** [`Authority`]. **Does not know:** who uses them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;

/// An authority with its files.
pub(crate) struct Authority {
    pub(crate) directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named("an authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.crt"), certificate.pem()).unwrap();
        Self {
            directory,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// The path of a file as the value of a setting.
    pub(crate) fn setting(&self, file: &str) -> String {
        self.path(file).to_str().unwrap().to_owned()
    }

    /// Issues a certificate for `localhost` with this common name, into `NAME.crt` and `NAME.key`.
    pub(crate) fn issue(&self, file: &str, common_name: &str) {
        self.issue_until(file, common_name, 4000);
    }

    /// The same, valid until the beginning of a year.
    pub(crate) fn issue_until(&self, file: &str, common_name: &str, year: i32) {
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = named(common_name);
        params.not_before = date_time_ymd(1990, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        write(&self.path(&format!("{file}.crt")), &certificate.pem());
        write(&self.path(&format!("{file}.key")), &key.serialize_pem());
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}
