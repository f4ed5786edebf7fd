//! `leftfold certs`: a development authority, and certificates it issues.
//!
//! **Owns:** what the certificates say, and the files. **Does not know:** servers.
//! **Invariants:** no file is replaced; a certificate and its key are both written or neither; private keys are readable by
//! their owner only; the authority is reused if it is there, so that certificates for users can be issued later.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use super::output;
use crate::{cli, display::escape, exit_code::usage, open};

/// Names of the files of the authority and of the server.
const AUTHORITY: &str = "ca";
const SERVER: &str = "server";

pub(crate) fn run(arguments: &cli::Certs) -> anyhow::Result<()> {
    let directory = &arguments.directory;
    open::must_be_path(directory)?;
    open::must_be_of_no_store(&directory.join("ca.key"), directory)?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let authority = authority(directory)?;
    let mut out = output();
    match &arguments.user {
        Some(login) => {
            let mut params = CertificateParams::new(Vec::<String>::new())?;
            params.distinguished_name = named(login);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let files = issue(directory, &format!("user-{login}"), params, &authority)?;
            let login = escape(login);
            writeln!(out, "certificate of user {login}:  {}", shown(&files.0))?;
            writeln!(out, "its private key:  {}", shown(&files.1))?;
        }
        None => {
            let mut params = CertificateParams::new(Vec::<String>::new())?;
            params.distinguished_name = named("leftfold");
            params.subject_alt_names = names(&arguments.hosts)?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let (certificate, key) = issue(directory, SERVER, params, &authority)?;
            writeln!(
                out,
                "certificates for development are in {}",
                shown(directory)
            )?;
            writeln!(out)?;
            writeln!(
                out,
                "  leftfold serve --data data --tls-certificate-file {} --tls-key-file {}",
                shown(&certificate),
                shown(&key)
            )?;
        }
    }
    Ok(out.flush()?)
}

/// A path as a terminal may show it.
fn shown(path: &Path) -> String {
    escape(&path.display().to_string())
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// The names of the server: IP addresses and host names.
fn names(hosts: &[String]) -> anyhow::Result<Vec<SanType>> {
    let name = |host: &String| {
        anyhow::Ok(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        })
    };
    let names: anyhow::Result<Vec<_>> = hosts.iter().map(name).collect();
    usage(names)
}

/// The authority in a directory; made if it is not there.
fn authority(directory: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let (certificate, key) = files(directory, AUTHORITY);
    if certificate.exists() && key.exists() {
        let read = |file: &Path| {
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
        };
        let pair = KeyPair::from_pem(&read(&key)?)?;
        let issuer = Issuer::from_ca_cert_pem(&read(&certificate)?, pair);
        return issuer.with_context(|| format!("cannot use {}", certificate.display()));
    }
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = named("Leftfold development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, 10);
    let pair = KeyPair::generate()?;
    let made = params.self_signed(&pair)?;
    write_both((&certificate, &made.pem()), (&key, &pair.serialize_pem()))?;
    Ok(Issuer::new(params, pair))
}

/// Issues a certificate, and writes it and its key.
fn issue(
    directory: &Path,
    name: &str,
    mut params: CertificateParams,
    authority: &Issuer<'_, KeyPair>,
) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (certificate, key) = files(directory, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    valid(&mut params, 2);
    let pair = KeyPair::generate()?;
    let made = params.signed_by(&pair, authority)?;
    write_both((&certificate, &made.pem()), (&key, &pair.serialize_pem()))?;
    Ok((certificate, key))
}

fn files(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    (
        directory.join(format!("{name}.crt")),
        directory.join(format!("{name}.key")),
    )
}

/// Valid from the beginning of this year for so many years and what is left of this one.
fn valid(params: &mut CertificateParams, years: i32) {
    let now = jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::now());
    let year = i32::from(now.year());
    params.not_before = date_time_ymd(year, 1, 1);
    params.not_after = date_time_ymd(year + years + 1, 1, 1);
}

/// Writes a certificate and its key, or neither: half of a pair would be in the way, or be taken for one that belongs to the
/// other half.
#[expect(
    clippy::disallowed_methods,
    reason = "a certificate is no part of a store"
)]
fn write_both(certificate: (&Path, &str), key: (&Path, &str)) -> anyhow::Result<()> {
    for (file, _) in [certificate, key] {
        if fs::symlink_metadata(file).is_ok() {
            return Err(exists(file));
        }
    }
    // Whoever makes the key makes both.
    write_new(key, 0o600)?;
    let written = write_new(certificate, 0o644);
    if written.is_err() {
        let _ = fs::remove_file(key.0);
    }
    written
}

/// Writes a file that is not there yet, or leaves none.
#[expect(
    clippy::disallowed_methods,
    reason = "a certificate is no part of a store"
)]
fn write_new((file, text): (&Path, &str), mode: u32) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let cannot = || format!("cannot write {}", file.display());
    let mut created = match options.open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(exists(file));
        }
        created => created.with_context(cannot)?,
    };
    let written = created.write_all(text.as_bytes());
    let written = written.and_then(|()| created.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(file);
    }
    written.with_context(cannot)
}

fn exists(file: &Path) -> anyhow::Error {
    anyhow!("{} exists; remove it to issue another one", file.display())
}
