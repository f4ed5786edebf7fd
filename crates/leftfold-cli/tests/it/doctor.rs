//! `leftfold doctor`: what it finds in an installation, sound or not.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    leftfold, printed,
    served::{Served, binary},
};

/// An installation with a store and certificates, all as they should be.
struct Installation {
    directory: TempDir,
}

impl Installation {
    fn new() -> Self {
        let installation = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let (data, certs) = (installation.path("data"), installation.path("certs"));
        printed(leftfold(&data, &["append", "--stream", "a", "--type", "T"]));
        let made = assert_cmd::Command::new(binary())
            .args(["certs", text(&certs)])
            .assert();
        printed(made);
        chmod(&data, 0o700);
        installation
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The findings for these flags beside those that name store and certificates, and the exit code.
    fn doctor(&self, flags: &[&str]) -> (Vec<Value>, i32) {
        let (data, certificate, key) = (
            self.path("data"),
            self.path("certs/server.crt"),
            self.path("certs/server.key"),
        );
        let ran = assert_cmd::Command::new(binary())
            .args(["doctor", "--json", "--data", text(&data)])
            .args(["--tls-certificate-file", text(&certificate)])
            .args(["--tls-key-file", text(&key)])
            .args(flags)
            .output()
            .unwrap();
        let lines = String::from_utf8(ran.stdout).unwrap();
        let findings = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        (findings.collect(), ran.status.code().unwrap())
    }

    /// The problem that one check finds, with what to do.
    #[track_caller]
    fn problem(&self, check: &str, flags: &[&str]) -> String {
        let (findings, code) = self.doctor(flags);
        assert_eq!(code, 1, "{findings:?}");
        let is_meant =
            |finding: &&Value| finding["check"] == check && finding["verdict"] == "problem";
        let found = findings.iter().find(is_meant);
        let found = found.unwrap_or_else(|| panic!("no problem of {check}: {findings:?}"));
        format!("{}; {}", found["found"], found["remedy"])
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_sound_installation_is_found_sound_and_unchanged() {
    let installation = Installation::new();
    let names = || {
        let entries = fs::read_dir(installation.path("data")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let (findings, _) = installation.doctor(&["--advertised-host", "localhost"]);
    for check in [
        "settings",
        "secret-file",
        "certificate",
        "clock",
        "directory",
        "store",
    ] {
        let found: Vec<_> = findings.iter().filter(|it| it["check"] == check).collect();
        assert!(!found.is_empty(), "{check}: {findings:?}");
        assert!(found.iter().all(|it| it["verdict"] == "ok"), "{found:?}");
    }
    for measured in ["descriptors", "disk-space", "sync-rate"] {
        assert!(
            findings.iter().any(|it| it["check"] == measured),
            "{measured}: {findings:?}"
        );
    }
    assert_eq!(names(), before);
}

#[test]
fn secrets_and_directories_that_others_reach_are_problems() {
    let installation = Installation::new();
    chmod(&installation.path("certs/server.key"), 0o640);
    let found = installation.problem("secret-file", &[]);
    assert!(
        found.contains("tls_key_file") && found.contains("chmod 600"),
        "{found}"
    );
    chmod(&installation.path("certs/server.key"), 0o600);
    let missing = installation.path("nowhere");
    let found = installation.problem("secret-file", &["--admin-password-file", text(&missing)]);
    assert!(found.contains("admin_password_file"), "{found}");
    chmod(&installation.path("data"), 0o777);
    let found = installation.problem("directory", &[]);
    assert!(
        found.contains("777") && found.contains("chmod 700"),
        "{found}"
    );
}

#[test]
fn certificates_that_clients_refuse_are_problems() {
    let installation = Installation::new();
    let found = installation.problem("certificate", &["--advertised-host", "events.example"]);
    assert!(
        found.contains("events.example") && found.contains("localhost"),
        "{found}"
    );
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2001, 1, 1);
    let expired = params.self_signed(&key).unwrap();
    fs::write(installation.path("certs/server.crt"), expired.pem()).unwrap();
    let mismatch = installation.problem("certificate", &[]);
    assert!(mismatch.contains("key"), "{mismatch}");
    fs::write(installation.path("certs/server.key"), key.serialize_pem()).unwrap();
    let found = installation.problem("certificate", &[]);
    assert!(found.contains("expired on 2001-01-01"), "{found}");
}

#[test]
fn keys_of_tokens_that_cannot_be_had_are_a_problem() {
    let installation = Installation::new();
    let keys = installation.path("keys.json");
    let key =
        r#"{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    fs::write(&keys, format!("{{\"keys\": [{key}]}}")).unwrap();
    let issuer = ["--jwt-issuer", "http://127.0.0.1:1", "--jwt-audience", "a"];
    let found = installation.problem("token-keys", &issuer);
    assert!(found.contains("jwt_issuer"), "{found}");
    let flags = [&issuer[..], &["--jwt-keys-file", text(&keys)]].concat();
    let (findings, _) = installation.doctor(&flags);
    let found = findings
        .iter()
        .find(|it| it["check"] == "token-keys")
        .unwrap();
    assert_eq!(found["verdict"], "ok", "{found}");
}

#[test]
fn contradicting_settings_and_exposed_addresses_are_problems() {
    let installation = Installation::new();
    let flags = ["--listen", "10.0.0.7:2113", "--authentication", "off"];
    let found = installation.problem("settings", &flags);
    assert!(
        found.contains("10.0.0.7:2113") && found.contains("authentication"),
        "{found}"
    );
}

#[test]
fn a_damaged_store_is_a_problem_and_one_in_use_is_none() {
    let installation = Installation::new();
    let data = installation.path("data");
    let served = Served::with(&["--data", text(&data)]);
    let (findings, _) = installation.doctor(&[]);
    let store = findings.iter().find(|it| it["check"] == "store").unwrap();
    assert_eq!(store["verdict"], "ok", "{store}");
    assert!(
        store["found"].as_str().unwrap().contains("in use"),
        "{store}"
    );
    drop(served);
    let entries = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for segment in entries.filter(|path| path.extension().is_some_and(|it| it == "seg")) {
        let mut bytes = fs::read(&segment).unwrap();
        bytes[..64].fill(0xff);
        fs::write(&segment, bytes).unwrap();
    }
    let found = installation.problem("store", &[]);
    assert!(found.contains("leftfold verify"), "{found}");
}

#[test]
fn findings_for_people_say_what_to_do() {
    let installation = Installation::new();
    chmod(&installation.path("data"), 0o707);
    let ran = leftfold(&installation.path("data"), &["doctor"]).code(1);
    let lines = String::from_utf8(ran.get_output().stdout.clone()).unwrap();
    assert!(lines.contains("PROBLEM  directory"), "{lines}");
    assert!(lines.contains("to do: chmod 700"), "{lines}");
}
