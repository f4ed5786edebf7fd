//! A private NATS server with JetStream, which tests can kill and start again.
//!
//! **Owns:** [`NatsServer`]: the server as a library of Go, built once. **Does not know:** messages.
//! **Invariants:** the server listens on the loopback address only; it ends with the process that started it, because it stops
//! when its standard input closes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test without its server stops at once and says why"
)]

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// The path of the source of the server's program, from this crate.
const SOURCE: &str = "../../interop/nats";
/// Attempts to reach the server before it counts as not started, with a pause of 20 ms in between.
const ATTEMPTS: usize = 1_500;

/// A server and its files. Dropping it ends the server and removes them.
pub(crate) struct NatsServer {
    directory: TempDir,
    port: u16,
    running: Option<Child>,
}

impl NatsServer {
    pub(crate) fn start() -> Self {
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut server = Self {
            directory: tempfile::tempdir().unwrap(),
            port: free.local_addr().unwrap().port(),
            running: None,
        };
        drop(free);
        server.restart();
        server
    }

    pub(crate) fn address(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().unwrap();
            running.wait().unwrap();
        }
    }

    /// Starts the server on the files and the port that it had.
    pub(crate) fn restart(&mut self) {
        let log = self.directory.path().join("log");
        let mut child = Command::new(program())
            .arg(format!("127.0.0.1:{}", self.port))
            .arg(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        for _ in 0..ATTEMPTS {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                self.running = Some(child);
                return;
            }
            if let Some(status) = child.try_wait().unwrap() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                panic!("the NATS server ended: {status}: {log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        panic!("the NATS server does not listen");
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // It may be gone already.
            let _ = running.kill();
            let _ = running.wait();
        }
    }
}

/// Returns the server's program, built once by Go; that of `LEFTFOLD_NATS` if it is set.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(program) = env::var_os("LEFTFOLD_NATS") {
            return program.into();
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCE);
        let program = source.join("../../target/tests/nats");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        // Go keeps what it built, so this takes a moment when nothing changed, and is safe to run side by side.
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(&source)
            .status();
        let status = built.unwrap_or_else(|error| {
            panic!("the tests of messages by NATS need Go to build their server: {error}")
        });
        assert!(
            status.success(),
            "go build of {} failed: {status}",
            source.display()
        );
        program
    })
}
