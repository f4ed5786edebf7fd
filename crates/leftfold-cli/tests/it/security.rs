//! `leftfold certs`, `users`, `keys` and `audit`, and a server that uses what they make.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use crate::{
    printed, said,
    served::{Served, binary},
};

fn leftfold(arguments: &[&str]) -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(binary());
    command.args(arguments);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Asks for an address over TLS, trusting an authority.
fn curl(ca: &Path, server: &Served, path: &str, credentials: &[&str]) -> Output {
    let port = server.address.rsplit_once(':').unwrap().1;
    Command::new("curl")
        .args([
            "--silent",
            "--cacert",
            text(ca),
            "--output",
            "-",
            "--write-out",
            " %{http_code}",
        ])
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
        .args(credentials)
        .arg(format!("https://localhost:{port}{path}"))
        .output()
        .unwrap()
}

fn code(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout)
        .rsplit(' ')
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn certificates_are_made_once_and_their_keys_are_for_their_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path().join("certs");
    let made = printed(leftfold(&["certs", text(&certs)]).assert());
    assert!(made.contains("--tls-certificate-file"), "{made}");
    for key in ["ca.key", "server.key"] {
        let mode = fs::metadata(certs.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let before = fs::read(certs.join("server.key")).unwrap();
    let refused = said(leftfold(&["certs", text(&certs)]).assert(), 1);
    assert!(refused.contains("server.crt exists"), "{refused}");
    assert_eq!(fs::read(certs.join("server.key")).unwrap(), before);
    leftfold(&["certs", text(&certs), "--user", "ann"])
        .assert()
        .success();
    said(
        leftfold(&["certs", text(&certs), "--user", "../ann"]).assert(),
        2,
    );
    let verified = Command::new("openssl")
        .args(["verify", "-CAfile", text(&certs.join("ca.crt"))])
        .args([certs.join("server.crt"), certs.join("user-ann.crt")])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn users_and_keys_made_by_commands_are_let_in_by_a_server_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let (certs, data) = (
        directory.path().join("certs"),
        directory.path().join("data"),
    );
    let password = directory.path().join("password");
    fs::write(&password, "correct horse\n").unwrap();
    leftfold(&["certs", text(&certs)]).assert().success();
    leftfold(&[
        "append",
        "--stream",
        "order-1",
        "--type",
        "T",
        "--data",
        text(&data),
    ])
    .assert()
    .success();
    let ann = [
        "users",
        "create",
        "ann",
        "--group",
        "$admins",
        "--password-file",
        text(&password),
        "--data",
        text(&data),
    ];
    leftfold(&ann).assert().success();
    let twice = said(leftfold(&ann).assert(), 1);
    assert!(twice.contains("user exists: ann"), "{twice}");
    let key = [
        "keys",
        "create",
        "shop",
        "--grant",
        "read:category=order",
        "--data",
        text(&data),
    ];
    let key = printed(leftfold(&key).assert());
    assert!(key.starts_with("lfk_"), "{key}");
    let bearer = format!("authorization: Bearer {}", key.trim());

    let (certificate, private_key) = (certs.join("server.crt"), certs.join("server.key"));
    let flags = [
        "--data",
        text(&data),
        "--tls-certificate-file",
        text(&certificate),
        "--tls-key-file",
        text(&private_key),
    ];
    let server = Served::with(&flags);
    let ca = certs.join("ca.crt");
    let events = "/api/v1/streams/order-1/events";
    assert_eq!(code(&curl(&ca, &server, events, &[])), "401");
    assert_eq!(
        code(&curl(&ca, &server, events, &["--user", "ann:wrong horse"])),
        "401"
    );
    assert_eq!(
        code(&curl(
            &ca,
            &server,
            events,
            &["--user", "ann:correct horse"]
        )),
        "200"
    );
    assert_eq!(
        code(&curl(&ca, &server, events, &["--header", &bearer])),
        "200"
    );
    assert_eq!(
        code(&curl(
            &ca,
            &server,
            "/api/v1/streams/invoice-1/events",
            &["--header", &bearer]
        )),
        "403"
    );
    assert_eq!(
        code(&curl(&ca, &server, "/metrics", &["--header", &bearer])),
        "403"
    );
    assert_eq!(
        code(&curl(
            &ca,
            &server,
            "/metrics",
            &["--user", "ann:correct horse"]
        )),
        "200"
    );

    let port = server.address.rsplit_once(':').unwrap().1;
    let url = format!(
        "leftfold://localhost:{port}?tls=true&tlsCaFile={}",
        text(&ca)
    );
    let by_url = ["read", "--url", &url, "--stream", "order-1"];
    leftfold(&by_url).assert().failure();
    let mut by_ann = leftfold(&by_url);
    by_ann
        .env("LEFTFOLD_USER", "ann")
        .env("LEFTFOLD_PASSWORD_FILE", &password);
    let read = printed(by_ann.assert());
    assert!(read.contains("order-1"), "{read}");
    let key_file = directory.path().join("key");
    fs::write(&key_file, &key).unwrap();
    let mut by_key = leftfold(&["stats", "--url", &url]);
    let denied = said(by_key.env("LEFTFOLD_API_KEY_FILE", &key_file).assert(), 1);
    assert!(denied.contains("operators may"), "{denied}");
    let (code, said) = server.terminate();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        !said.contains("horse") && !said.contains(key.trim()),
        "{said}"
    );

    let audit = printed(leftfold(&["audit", "--data", text(&data)]).assert());
    assert!(
        audit.contains("denied") && audit.contains("127.0.0.1"),
        "{audit}"
    );
    let verified = printed(leftfold(&["audit", "--verify", "--data", text(&data)]).assert());
    assert!(verified.contains("each as it was written"), "{verified}");
    let keys = printed(leftfold(&["keys", "list", "--data", text(&data)]).assert());
    assert!(keys.contains("shop") && !keys.contains("lfk_"), "{keys}");
}

#[test]
fn a_server_prints_its_addresses_and_the_first_password_once() {
    let directory = tempfile::tempdir().unwrap();
    let (certs, data) = (
        directory.path().join("certs"),
        directory.path().join("data"),
    );
    leftfold(&["certs", text(&certs)]).assert().success();
    let (certificate, private_key) = (certs.join("server.crt"), certs.join("server.key"));
    let flags = [
        "--data",
        text(&data),
        "--tls-certificate-file",
        text(&certificate),
        "--tls-key-file",
        text(&private_key),
    ];
    let (server, lines) = Served::with_output(&flags);
    let ca = certs.join("ca.crt").canonicalize().unwrap();
    assert!(
        lines.contains(&format!("?tls=true&tlsCaFile={}", text(&ca))),
        "{lines}"
    );
    let password = lines
        .split("admin, password ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let user = format!("admin:{password}");
    assert_eq!(
        code(&curl(&ca, &server, "/info", &["--user", &user])),
        "200"
    );
    assert_eq!(server.terminate().0, Some(0));
    let (server, lines) = Served::with_output(&flags);
    assert!(!lines.contains("password"), "{lines}");
    assert_eq!(
        code(&curl(&ca, &server, "/info", &["--user", &user])),
        "200"
    );
}
