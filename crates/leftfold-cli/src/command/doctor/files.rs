//! The files of an installation: who may read them, whether they can be used, and until when.
//!
//! **Owns:** these checks. **Does not know:** the machine; settings beyond those that name files.
//! **Invariants:** no content of a secret is printed.

use std::{
    fs::{self, Metadata},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use leftfold_log::{LogOptions, OpenError, StorageError};
use leftfold_model::ErrorChain;
use leftfold_server::{CertificateInfo, Settings, access::count_token_keys};
use leftfold_store::{EmbeddedStore, EventStore};
use rustix::fs::{Access, access};

use super::finding::Finding;
use crate::open::{self, StoreLocation};

/// Days before the end of a certificate from which on it should be replaced.
const DAYS_LEFT_MIN: i64 = 30;
/// The bits of a mode by which others than the owner may read or write.
const FOR_OTHERS: u32 = 0o077;
/// The bits of a mode by which others than the owner may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The files with secrets that settings name: each must be there, and for its owner alone.
pub(super) fn secrets(settings: &Settings) -> Vec<Finding> {
    let named = [
        ("tls_key_file", &settings.tls_key_file),
        ("admin_password_file", &settings.admin_password_file),
    ];
    let named = named.into_iter().filter(|(_, file)| !file.is_empty());
    named
        .map(|(setting, file)| secret(setting, Path::new(file)))
        .collect()
}

fn secret(setting: &'static str, file: &Path) -> Finding {
    let check = "secret-file";
    let shown = file.display();
    match fs::metadata(file) {
        Err(error) => Finding::problem(
            check,
            format!("{setting} {shown} cannot be read: {error}"),
            format!("correct {setting}, or create the file"),
        ),
        Ok(metadata) if mode(&metadata) & FOR_OTHERS != 0 => Finding::problem(
            check,
            format!(
                "{setting} {shown} is open to others: mode {:03o}",
                mode(&metadata)
            ),
            format!("chmod 600 {shown}"),
        ),
        Ok(_) => Finding::ok(check, format!("{setting} {shown} is for its owner alone")),
    }
}

/// The file of settings: others must not be able to change it.
pub(super) fn config(file: &Path) -> Finding {
    let check = "settings-file";
    let shown = file.display();
    match fs::metadata(file) {
        Ok(metadata) if mode(&metadata) & WRITABLE_BY_OTHERS != 0 => Finding::problem(
            check,
            format!(
                "{shown} can be changed by others: mode {:03o}",
                mode(&metadata)
            ),
            format!("chmod go-w {shown}"),
        ),
        Ok(_) => Finding::ok(check, format!("{shown} is changed by its owner alone")),
        Err(error) => Finding::problem(check, format!("{shown}: {error}"), "correct --config"),
    }
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o777
}

/// The certificates that the settings name: whether they can be used, for which host, and until when.
pub(super) fn certificates(settings: &Settings) -> Vec<Finding> {
    let check = "certificate";
    let infos = match CertificateInfo::of_settings(settings) {
        Ok(infos) => infos,
        Err(error) => {
            let found = ErrorChain(&error).to_string();
            let remedy = "correct the setting or the file; `leftfold certs` makes certificates for development";
            return vec![Finding::problem(check, found, remedy)];
        }
    };
    let now = jiff::Timestamp::now().as_second();
    let mut findings: Vec<_> = infos.iter().map(|info| validity(info, now)).collect();
    // The server's own is the first one.
    let host = settings.advertised_host.as_str();
    if let Some(own) = infos.first()
        && !host.is_empty()
        && !own.is_for(host)
    {
        let found = format!(
            "{} is for {}, not for advertised_host {host}",
            own.file.display(),
            own.hosts.join(", ")
        );
        let remedy = format!("issue a certificate with the name {host}; clients refuse this one");
        findings.push(Finding::problem(check, found, remedy));
    }
    findings
}

/// The keys of the issuer whose tokens the settings take: whether they can be had.
pub(super) async fn token_keys(settings: &Settings) -> Option<Finding> {
    let check = "token-keys";
    match count_token_keys(settings).await {
        Ok(None) => None,
        Ok(Some(keys)) => {
            let found = format!("{keys} keys verify tokens of {}", settings.jwt_issuer);
            Some(Finding::ok(check, found))
        }
        Err(error) => Some(Finding::problem(
            check,
            ErrorChain(&error).to_string(),
            "correct the settings that begin with jwt_, or let this machine reach the issuer",
        )),
    }
}

fn validity(info: &CertificateInfo, now: i64) -> Finding {
    let check = "certificate";
    let day = |second: i64| match jiff::Timestamp::from_second(second) {
        Ok(time) => time.strftime("%Y-%m-%d").to_string(),
        Err(_) => second.to_string(),
    };
    let (file, subject) = (info.file.display(), &info.subject);
    let remedy =
        "issue another one and replace the file; a running server takes it without a restart";
    let days_left = (info.not_after - now) / 86_400;
    if info.not_before > now {
        let found = format!(
            "{file}, {subject}, is valid from {} on",
            day(info.not_before)
        );
        Finding::problem(check, found, "check the clock, or issue another one")
    } else if info.not_after < now {
        let found = format!("{file}, {subject}, has expired on {}", day(info.not_after));
        Finding::problem(check, found, remedy)
    } else if days_left < DAYS_LEFT_MIN {
        let found = format!("{file}, {subject}, expires in {days_left} days");
        Finding::warning(check, found, remedy)
    } else {
        Finding::ok(
            check,
            format!("{file}, {subject}, is valid until {}", day(info.not_after)),
        )
    }
}

/// The directory of a store: whether it can be written, and by its owner alone.
pub(super) fn directory(directory: &Path) -> Finding {
    let check = "directory";
    let shown = directory.display();
    let metadata = match fs::metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) => {
            return Finding::problem(check, format!("{shown}: {error}"), "correct --data");
        }
    };
    let owner = metadata.uid();
    if access(
        directory,
        Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
    )
    .is_err()
    {
        let found = format!("{shown} belongs to user {owner} and cannot be written by this one");
        return Finding::problem(
            check,
            found,
            "run the command as the user that runs the server, or chown it",
        );
    }
    let mode = mode(&metadata);
    if mode & WRITABLE_BY_OTHERS != 0 {
        let found = format!("{shown} can be changed by others: mode {mode:03o}");
        return Finding::problem(check, found, format!("chmod 700 {shown}"));
    }
    if mode & FOR_OTHERS != 0 {
        let found = format!("{shown} can be read by others: mode {mode:03o}");
        return Finding::warning(
            check,
            found,
            format!("chmod 700 {shown}, since events are not encrypted"),
        );
    }
    Finding::ok(check, format!("{shown} is for user {owner} alone"))
}

/// The store in a directory: whether this version opens it. It is opened for reading only.
pub(super) async fn store(directory: &Path) -> Finding {
    let check = "store";
    let shown = directory.display();
    let store = match EmbeddedStore::open_read_only(directory, LogOptions::default()).await {
        Ok(store) => store,
        Err(error) => return cannot_open(directory, &error),
    };
    let finding = match store.head().await {
        Ok(head) => Finding::ok(check, format!("{shown} opens; its head is {head}")),
        Err(error) => Finding::problem(
            check,
            format!("{shown} opens and cannot be read: {}", ErrorChain(&error)),
            format!("leftfold verify --data {shown}"),
        ),
    };
    // It was opened for reading, so nothing is left to be written.
    let _ = store.close().await;
    finding
}

fn cannot_open(directory: &Path, error: &OpenError) -> Finding {
    let check = "store";
    let shown = directory.display();
    let found = format!("{shown}: {}", ErrorChain(error));
    match error {
        OpenError::Lock(_) => {
            Finding::ok(check, format!("{found}; not checked while it is in use"))
        }
        OpenError::NoLog => Finding::ok(check, format!("{shown} is empty")),
        OpenError::NewerFormat { .. } => Finding::problem(
            check,
            found,
            "install the version that wrote it, or a newer one",
        ),
        OpenError::ForeignFile { .. } => Finding::problem(
            check,
            found,
            "move the file away; a store has a directory of its own",
        ),
        OpenError::Storage(StorageError::NewerFormat { .. }) => Finding::problem(
            check,
            found,
            "install the version that wrote it, or a newer one",
        ),
        _ => Finding::problem(check, found, format!("leftfold verify --data {shown}")),
    }
}

/// A database: whether this version opens the store in it.
pub(super) async fn database(location: &StoreLocation) -> Finding {
    let check = "store";
    let opened = match location {
        StoreLocation::Postgres(options, name) => {
            let options = Box::new((**options).clone().without_migrating());
            open::at(&StoreLocation::Postgres(options, name.clone())).await
        }
        other => open::at(other).await,
    };
    let store: Arc<dyn EventStore> = match opened {
        Ok(store) => store,
        Err(error) => {
            let found = ErrorChain(error.as_ref()).to_string();
            let remedy = "check the address and the rights of its user; `leftfold migrate` if the schema is older";
            return Finding::problem(check, found, remedy);
        }
    };
    let finding = match store.check().await {
        Ok(()) => Finding::ok(check, format!("{location} takes reads and appends")),
        Err(error) => Finding::problem(
            check,
            ErrorChain(&error).to_string(),
            "check the database and the connection to it",
        ),
    };
    let _ = store.close().await;
    finding
}
