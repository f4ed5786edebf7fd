//! `leftfold certs`, `users`, `keys` and `audit`, and a server that uses what they make.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
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
fn a_certificate_and_its_key_are_both_written_or_neither() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path().join("certs");
    let names = || {
        let entries = fs::read_dir(&certs).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    };
    // No file may grow, as on a full disk.
    let mut full = assert_cmd::Command::new("sh");
    full.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]);
    full.arg(binary()).args(["certs", text(&certs)]);
    let refused = said(full.assert(), 1);
    assert!(refused.contains("cannot write"), "{refused}");
    assert_eq!(names(), [""; 0]);
    leftfold(&["certs", text(&certs)]).assert().success();
    // The other half of a pair is there already.
    for half in ["ca.key", "ca.crt", "server.key", "server.crt"] {
        fs::rename(certs.join(half), directory.path().join(half)).unwrap();
        let before = names();
        let refused = said(leftfold(&["certs", text(&certs)]).assert(), 1);
        assert!(refused.contains("exists"), "{refused}");
        assert_eq!(names(), before, "without {half}");
        fs::rename(directory.path().join(half), certs.join(half)).unwrap();
    }
}

/// A store, the certificates of a server of it, and the password file of the administrator `ann`.
struct Secured {
    directory: tempfile::TempDir,
}

impl Secured {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let secured = Self { directory };
        leftfold(&["certs", &secured.path("certs")])
            .assert()
            .success();
        secured
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn authority(&self) -> PathBuf {
        let file = self.directory.path().join("certs/ca.crt");
        file.canonicalize().unwrap()
    }

    /// Runs a command on the store itself.
    fn on_data(&self, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = leftfold(arguments);
        command.args(["--data", &self.path("data")]);
        command
    }

    /// Makes an administrator, and a key that may read the orders. Gives the key.
    fn with_ann_and_a_key(&self) -> String {
        let password = self.path("password");
        fs::write(&password, "correct horse\n").unwrap();
        let ann = ["users", "create", "ann", "--group", "$admins"];
        let create = || {
            let mut create = self.on_data(&ann);
            create.args(["--password-file", &password]).assert()
        };
        create().success();
        let twice = said(create(), 1);
        assert!(twice.contains("user exists: ann"), "{twice}");
        let key = ["keys", "create", "shop", "--grant", "read:category=order"];
        let key = printed(self.on_data(&key).assert());
        assert!(key.starts_with("lfk_"), "{key}");
        key
    }

    fn flags(&self) -> [String; 6] {
        [
            "--data".into(),
            self.path("data"),
            "--tls-certificate-file".into(),
            self.path("certs/server.crt"),
            "--tls-key-file".into(),
            self.path("certs/server.key"),
        ]
    }
}

#[test]
fn users_and_keys_made_by_commands_are_let_in_by_a_server_over_tls() {
    let secured = Secured::new();
    let append = ["append", "--stream", "order-1", "--type", "T"];
    secured.on_data(&append).assert().success();
    let key = secured.with_ann_and_a_key();
    let server = Served::with(&secured.flags().each_ref().map(String::as_str));
    let ca = secured.authority();
    let bearer = format!("authorization: Bearer {}", key.trim());
    let (by_key, by_ann) = (["--header", &bearer], ["--user", "ann:correct horse"]);
    let events = "/api/v1/streams/order-1/events";
    let invoices = "/api/v1/streams/invoice-1/events";
    let expected: [(&str, &[&str], &str); 7] = [
        (events, &[], "401"),
        (events, &["--user", "ann:wrong horse"], "401"),
        (events, &by_ann, "200"),
        (events, &by_key, "200"),
        (invoices, &by_key, "403"),
        ("/metrics", &by_key, "403"),
        ("/metrics", &by_ann, "200"),
    ];
    for (path, credentials, status) in expected {
        let answered = code(&curl(&ca, &server, path, credentials));
        assert_eq!(answered, status, "{path} {credentials:?}");
    }
    commands_show_credentials(&secured, &server, &key);
    let (code, said) = server.terminate();
    assert_eq!(code, Some(0), "{said}");
    let revealed = said.contains("horse") || said.contains(key.trim());
    assert!(!revealed, "{said}");

    let audit = printed(secured.on_data(&["audit"]).assert());
    assert!(audit.contains("denied"), "{audit}");
    assert!(audit.contains("127.0.0.1"), "{audit}");
    let verified = printed(secured.on_data(&["audit", "--verify"]).assert());
    assert!(verified.contains("each as it was written"), "{verified}");
    let keys = printed(secured.on_data(&["keys", "list"]).assert());
    assert!(keys.contains("shop") && !keys.contains("lfk_"), "{keys}");
}

#[test]
fn users_and_keys_are_created_before_the_first_start() {
    let secured = Secured::new();
    let missing = said(secured.on_data(&["users", "list"]).assert(), 1);
    assert!(missing.contains("no directory"), "{missing}");
    secured.with_ann_and_a_key();
    let users = printed(secured.on_data(&["users", "list"]).assert());
    assert!(users.contains("ann"), "{users}");
}

#[test]
fn lists_of_users_and_keys_and_the_audit_hold_nothing_that_a_terminal_acts_on() {
    const HOSTILE: &str = "\u{1b}[2J\u{9b}1mAnn\u{202e}";
    let secured = Secured::new();
    let key = secured.with_ann_and_a_key();
    let password = secured.path("password");
    let user = ["users", "create", "eve", "--password-file", &password];
    let mut create = secured.on_data(&user);
    create.args(["--full-name", HOSTILE]).assert().success();
    let grant = ["keys", "create", HOSTILE, "--grant", "read"];
    secured.on_data(&grant).assert().success();
    let server = Served::with(&secured.flags().each_ref().map(String::as_str));
    let bearer = format!("authorization: Bearer {}", key.trim());
    // The audit names the stream.
    let path = "/api/v1/streams/%1B%5B2J%C2%9B1mAnn%E2%80%AE/events";
    let answered = curl(&secured.authority(), &server, path, &["--header", &bearer]);
    assert_eq!(code(&answered), "403");
    assert_eq!(server.terminate().0, Some(0));
    for command in [&["users", "list"][..], &["keys", "list"], &["audit"]] {
        let shown = printed(secured.on_data(command).assert());
        assert!(shown.contains("Ann"), "{command:?}: {shown:?}");
        for acts in ['\u{1b}', '\u{9b}', '\u{202e}'] {
            assert!(!shown.contains(acts), "{command:?}: {shown:?}");
        }
    }
}

/// Reads from a server without credentials, as a user, and by a key without the right.
fn commands_show_credentials(secured: &Secured, server: &Served, key: &str) {
    let port = server.address.rsplit_once(':').unwrap().1;
    let ca = secured.authority();
    let url = format!(
        "leftfold://localhost:{port}?tls=true&tlsCaFile={}",
        text(&ca)
    );
    let by_url = ["read", "--url", &url, "--stream", "order-1"];
    leftfold(&by_url).assert().failure();
    let mut by_ann = leftfold(&by_url);
    by_ann.env("LEFTFOLD_USER", "ann");
    by_ann.env("LEFTFOLD_PASSWORD_FILE", secured.path("password"));
    let read = printed(by_ann.assert());
    assert!(read.contains("order-1"), "{read}");
    let key_file = secured.path("key");
    fs::write(&key_file, key).unwrap();
    let mut by_key = leftfold(&["stats", "--url", &url]);
    let denied = said(by_key.env("LEFTFOLD_API_KEY_FILE", &key_file).assert(), 1);
    assert!(denied.contains("operators may"), "{denied}");
}

#[test]
fn a_server_prints_its_addresses_and_the_first_password_once() {
    let secured = Secured::new();
    let flags = secured.flags();
    let flags = flags.each_ref().map(String::as_str);
    let (server, lines) = Served::with_output(&flags);
    let ca = secured.authority();
    let trusting = format!("?tls=true&tlsCaFile={}", text(&ca));
    assert!(lines.contains(&trusting), "{lines}");
    let (_, password) = lines.split_once("admin, password ").unwrap();
    let (password, _) = password.split_once(' ').unwrap();
    let user = format!("admin:{password}");
    let as_admin = ["--user", user.as_str()];
    assert_eq!(code(&curl(&ca, &server, "/info", &as_admin)), "200");
    assert_eq!(server.terminate().0, Some(0));
    let (server, lines) = Served::with_output(&flags);
    assert!(!lines.contains("password"), "{lines}");
    assert_eq!(code(&curl(&ca, &server, "/info", &as_admin)), "200");
}
