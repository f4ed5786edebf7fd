//! `leftfold serve` as a process: its settings, its first line, its end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
};

use crate::{
    printed, said,
    served::{Served, binary},
};

#[test]
fn a_server_says_where_it_is_and_ends_in_order_when_told() {
    let data = tempfile::tempdir().unwrap();
    let directory = data.path().join("store");
    let server = Served::with(&["--data", directory.to_str().unwrap(), "--log-format=json"]);
    assert!(server.get("/health/live", "").starts_with("HTTP/1.1 200"));
    // An idle connection does not keep the server from ending.
    let _idle = TcpStream::connect(&server.address).unwrap();
    let (code, said) = server.terminate();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\"stopping"), "{said}");
    assert!(directory.is_dir());
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_server_returns_large_blocks_of_memory_unless_its_environment_says_how() {
    let threshold = |variable: Option<&str>| {
        let mut serve = Command::new(binary());
        serve
            .args(["serve", "--memory", "--listen=127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(value) = variable {
            serve.env("MALLOC_MMAP_THRESHOLD_", value);
        }
        let mut server = serve.spawn().unwrap();
        let mut first = String::new();
        let mut printed = BufReader::new(server.stdout.take().unwrap());
        printed.read_line(&mut first).unwrap();
        let environment = std::fs::read(format!("/proc/{}/environ", server.id())).unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut variables = environment.split('\0');
        variables
            .find_map(|variable| variable.strip_prefix("MALLOC_MMAP_THRESHOLD_="))
            .map(str::to_owned)
    };
    assert_eq!(threshold(None).as_deref(), Some("1048576"));
    assert_eq!(threshold(Some("4096")).as_deref(), Some("4096"));
}

#[test]
fn a_server_that_is_told_to_end_before_its_first_line_is_out_ends_in_order() {
    // Nothing reads these lines yet, so that the server's own has to wait.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut lines = writer.try_clone().unwrap();
    let filled = thread::spawn(move || lines.write_all(&[b'\n'; 1 << 20]));
    let mut server = Served::listening(&["--memory"], writer);
    server.tell_to_end();
    let mut printed = String::new();
    reader.read_to_string(&mut printed).unwrap();
    filled.join().unwrap().unwrap();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(printed.contains("leftfold serves"));
}

#[test]
fn a_server_that_is_told_to_end_while_its_store_is_opened_ends_at_once() {
    // A database that takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let database = format!("postgres://ann@{}/events", silent.local_addr().unwrap());
    let server = Served::listening(&["--data", &database], Stdio::null());
    // To replace its certificate is not to end it.
    server.signal("-HUP");
    let answer = server.get("/health/live", "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (code, said) = server.terminate();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("still being opened"), "{said}");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "listen = \"127.0.0.1:1\"\nlog_filter = \"info\"\n",
    )
    .unwrap();
    let config = file.path().to_str().unwrap();
    let server = Served::with(&["--memory", "--config", config]);
    assert!(!server.address.ends_with(":1"));
    drop(server);
    let refused = |variable: &str, value: &str| {
        let ran = assert_cmd::Command::new(binary())
            .args(["serve", "--memory", "--config", config])
            .env(variable, value)
            .assert();
        said(ran, 2)
    };
    let message = refused("LEFTFOLD_LISTEN", "0.0.0.0:0");
    assert!(message.contains("insecure"), "{message}");
    let message = refused("LEFTFOLD_CONNECTIONS_MAX", "many");
    assert!(
        message.contains("connections_max") && message.contains("many"),
        "{message}"
    );
    let message = refused("LEFTFOLD_REQUEST_TIMEOUT", "0s");
    assert!(message.contains("request_timeout"), "{message}");
    std::fs::write(file.path(), "lisden = \"127.0.0.1:1\"\n").unwrap();
    let message = refused("LEFTFOLD_LOG_FILTER", "info");
    assert!(message.contains("lisden"), "{message}");
}

#[test]
fn a_mistyped_environment_variable_ends_the_start_and_names_the_one_that_may_be_meant() {
    let with = |variable: &str| {
        let mut command = assert_cmd::Command::new(binary());
        // What is not mistyped, and ends the start before anything is served.
        command.args(["serve", "--memory", "--request-timeout", "0s"]);
        said(command.env(variable, "127.0.0.1:1").assert(), 2)
    };
    let message = with("LEFTFOLD_LISDEN");
    assert!(
        message.contains("LEFTFOLD_LISDEN") && message.contains("LEFTFOLD_LISTEN"),
        "{message}"
    );
    // Variables that a cluster makes for a service named leftfold are no settings.
    let message = with("LEFTFOLD_PORT_2113_TCP_ADDR");
    assert!(message.contains("request_timeout"), "{message}");
}

/// Starts an exposed server; returns its port and the lines behind the first one.
fn exposed(flags: &[&str]) -> (String, Vec<String>) {
    let child = Command::new(binary())
        .args(["serve", "--memory", "--listen", "0.0.0.0:0", "--insecure"])
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let address = "0.0.0.0:0".to_owned();
    let mut server = Served { child, address };
    let mut lines = BufReader::new(server.child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let port = first.rsplit(':').next().unwrap().to_owned();
    let mut log = BufReader::new(server.child.stderr.take().unwrap()).lines();
    let warned = log.find(|line| line.as_ref().unwrap().contains("INSECURE"));
    assert!(warned.is_some());
    drop(server);
    (port, lines.map(Result::unwrap).collect())
}

#[test]
fn a_variable_that_sets_nothing_is_named_at_start() {
    let child = Command::new(binary())
        .args(["serve", "--memory", "--listen", "127.0.0.1:0"])
        .env("LEFTFOLD_LOG_LEVEL", "debug")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let address = "127.0.0.1:0".to_owned();
    let mut server = Served { child, address };
    let mut log = BufReader::new(server.child.stderr.take().unwrap()).lines();
    let named = log.find(|line| line.as_ref().unwrap().contains("LEFTFOLD_LOG_LEVEL"));
    let named = named.expect("the log names the variable").unwrap();
    assert!(named.contains("sets nothing"), "{named}");
}

#[test]
fn an_exposed_server_warns_and_tells_addresses_that_lead_to_it() {
    let (port, rest) = exposed(&[]);
    let connect = format!("kurrentdb://localhost:{port}?tls=false");
    let code = rest.iter().filter(|line| line.contains("KurrentDBClient"));
    assert_eq!(code.count(), 2, "two lines of code: {rest:?}");
    assert!(rest.iter().any(|line| line.contains(&connect)), "{rest:?}");
}

#[test]
fn an_exposed_server_that_authenticates_tells_an_address_that_takes_credentials() {
    let (port, rest) = exposed(&["--authentication", "on"]);
    let connect = format!("leftfold://localhost:{port}?tls=false");
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
    let message = said(taken, 1);
    assert!(message.contains(&server.address), "{message}");
}

#[test]
fn the_documented_settings_are_those_there_are() {
    let table = assert_cmd::Command::new(binary())
        .args(["serve", "--print-settings"])
        .assert();
    let documented = include_str!("../../../../docs/settings.md");
    assert!(
        documented.contains(&printed(table)),
        "docs/settings.md lacks what `leftfold serve --print-settings` prints"
    );
}
