//! `leftfold serve` as a process of its own.
//!
//! **Owns:** the process: where it listens, how a test ends it. **Does not know:** requests.
//! **Invariants:** it ends with its test, however that ends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

/// The built command.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_leftfold")
}

/// A server that is killed when the test is over.
pub(crate) struct Served {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Served {
    /// A server with these arguments, on an address of its own; what it says is kept.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::by(
            Command::new(binary())
                .args(["serve", "--listen", "127.0.0.1:0"])
                .args(arguments)
                .stderr(Stdio::piped()),
        )
    }

    /// The same, with all that it prints when it begins.
    pub(crate) fn with_output(arguments: &[&str]) -> (Self, String) {
        let mut child = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = String::new();
        let mut output = BufReader::new(child.stdout.as_mut().unwrap());
        while !lines.contains("connectionString") {
            assert!(
                output.read_line(&mut lines).unwrap() > 0,
                "it ended: {lines}"
            );
        }
        let first = lines.lines().next().unwrap();
        let address = first.rsplit(' ').next().unwrap().to_owned();
        (Self { child, address }, lines)
    }

    /// What this command starts, once it listens.
    pub(crate) fn by(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut first)
            .unwrap();
        let address = first.trim().rsplit(' ').next().unwrap().to_owned();
        Self { child, address }
    }

    /// A server that listens, whether or not its store is open; what it prints goes to `output`.
    pub(crate) fn listening(arguments: &[&str], output: impl Into<Stdio>) -> Self {
        let mut child = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format=json"])
            .args(arguments)
            .stderr(Stdio::piped())
            .stdout(output)
            .spawn()
            .unwrap();
        let mut line = String::new();
        // A byte at a time, so that the lines behind this one are left to be read.
        let stderr = child.stderr.as_mut().unwrap();
        BufReader::with_capacity(1, stderr)
            .read_line(&mut line)
            .unwrap();
        let (_, address) = line.split_once("\"address\":\"").unwrap();
        let address = address.split('"').next().unwrap().to_owned();
        Self { child, address }
    }

    /// The answer to a request with these headers besides, each with its line's end.
    pub(crate) fn get(&self, path: &str, headers: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Asks it to end in order.
    pub(crate) fn tell_to_end(&self) {
        self.signal("-TERM");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it in order: its exit code, `None` if a signal ended it, and what it said.
    pub(crate) fn terminate(mut self) -> (Option<i32>, String) {
        self.tell_to_end();
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
