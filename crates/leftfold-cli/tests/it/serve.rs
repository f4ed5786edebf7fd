//! `leftfold serve` as a process: its settings, its first line, its end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use crate::{printed, said};

/// The built command.
fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_leftfold")
}

/// A server that is killed when the test is over.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn with(arguments: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut first)
            .unwrap();
        let address = first.trim().rsplit(' ').next().unwrap().to_owned();
        Self { child, address }
    }

    fn get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    fn terminate(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        let code = self.child.wait().unwrap().code();
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (code, said)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_says_where_it_is_and_ends_in_order_when_told() {
    let data = tempfile::tempdir().unwrap();
    let directory = data.path().join("store");
    let server = Served::with(&["--data", directory.to_str().unwrap(), "--log-format=json"]);
    assert!(server.get("/health/live").starts_with("HTTP/1.1 200"));
    // Whoever only holds a connection does not keep the server from ending.
    let _idle = TcpStream::connect(&server.address).unwrap();
    let (code, said) = server.terminate();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\"stopping"), "{said}");
    assert!(directory.is_dir());
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "listen = \"127.0.0.1:1\"\nlog = \"info\"\n").unwrap();
    let config = file.path().to_str().unwrap();
    let server = Served::with(&["--memory", "--config", config]);
    assert!(!server.address.ends_with(":1"));
    drop(server);
    let refused = |variable: &str, value: &str| {
        let ran = assert_cmd::Command::new(binary())
            .args(["serve", "--memory", "--config", config])
            .env(variable, value)
            .assert();
        said(ran, 1)
    };
    let told = refused("LEFTFOLD_LISTEN", "0.0.0.0:0");
    assert!(told.contains("insecure"), "{told}");
    let told = refused("LEFTFOLD_CONNECTIONS_MAX", "many");
    assert!(
        told.contains("connections_max") && told.contains("many"),
        "{told}"
    );
    let told = refused("LEFTFOLD_CALL_TIMEOUT", "0s");
    assert!(told.contains("call_timeout"), "{told}");
    std::fs::write(file.path(), "lisden = \"127.0.0.1:1\"\n").unwrap();
    let told = refused("LEFTFOLD_LOG", "info");
    assert!(told.contains("lisden"), "{told}");
}

#[test]
fn an_exposed_server_warns_and_tells_addresses_that_lead_to_it() {
    let mut child = Command::new(binary())
        .args(["serve", "--memory", "--listen", "0.0.0.0:0", "--insecure"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let port = first.rsplit(':').next().unwrap().to_owned();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let warned = log.find(|line| line.as_ref().unwrap().contains("INSECURE"));
    assert!(warned.is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    let connect = format!("kurrentdb://localhost:{port}?tls=false");
    let code = rest.iter().filter(|line| line.contains("KurrentDBClient"));
    assert_eq!(code.count(), 2, "two lines of code: {rest:?}");
    assert!(rest.iter().any(|line| line.contains(&connect)), "{rest:?}");
}

#[test]
fn a_server_needs_a_store_and_a_free_address() {
    let none = assert_cmd::Command::new(binary()).arg("serve").assert();
    assert!(said(none, 2).contains("--data"));
    let server = Served::with(&["--memory"]);
    let taken = assert_cmd::Command::new(binary())
        .args(["serve", "--memory", "--listen", &server.address])
        .assert();
    let told = said(taken, 1);
    assert!(told.contains(&server.address), "{told}");
}

#[test]
fn the_documented_settings_are_those_there_are() {
    let table = assert_cmd::Command::new(binary())
        .args(["serve", "--settings"])
        .assert();
    let documented = include_str!("../../../../docs/settings.md");
    assert!(
        documented.contains(&printed(table)),
        "docs/settings.md lacks what `leftfold serve --settings` prints"
    );
}
