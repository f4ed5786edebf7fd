//! A private server of MongoDB's protocol for tests, removed afterwards.
//!
//! **Owns:** [`Server`]: FerretDB as a library, or the server that `MONGODB_URL` names. **Does not know:** the store.
//! **Invariants:** the server listens on the loopback address only; it ends with the process that started it, however that
//! ends, because it stops when its standard input closes.

#![expect(
    clippy::missing_panics_doc,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test without its server stops at once and says why"
)]

use std::{
    env, fs,
    io::Read,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use crate::MongoOptions;

/// The path of the source of the server's program, from this crate.
const SOURCE: &str = "../../interop/ferretdb";
/// Attempts to reach a server before it counts as not started, with a pause of 20 ms in between.
const ATTEMPTS: usize = 1_500;

/// A running server. Dropping it ends the server and removes its files.
#[derive(Debug)]
pub struct Server {
    address: String,
    running: Option<Running>,
    databases: AtomicU32,
}

#[derive(Debug)]
struct Running {
    child: Child,
    directory: PathBuf,
    port: u16,
}

impl Server {
    /// Starts a server, or uses the one that `MONGODB_URL` names.
    #[must_use]
    pub fn start() -> Self {
        if let Ok(address) = env::var("MONGODB_URL") {
            return Self {
                address,
                running: None,
                databases: AtomicU32::new(0),
            };
        }
        let directory = tempfile::Builder::new()
            .prefix("leftfold-mongodb-")
            .tempdir()
            .expect("a directory for the server")
            .keep();
        let running = Running::start(directory, free_port());
        Self {
            address: format!("mongodb://127.0.0.1:{}/", running.port),
            running: Some(running),
            databases: AtomicU32::new(0),
        }
    }

    /// Returns options for a store of its own on this server.
    #[must_use]
    pub fn fresh(&self) -> MongoOptions {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let options: MongoOptions = self.address.parse().expect("the server's address");
        let process = std::process::id();
        options.with_database(format!("leftfold_{process}_{number}"))
    }

    /// Returns the address of a database of its own on this server.
    #[must_use]
    pub fn database(&self) -> String {
        let database = self.fresh().database().to_owned();
        let (place, query) = self.address.split_once('?').unwrap_or((&self.address, ""));
        format!("{}/{database}?{query}", place.trim_end_matches('/'))
    }

    /// Returns the port on which the server listens, to reach it through a proxy; none for a server that `MONGODB_URL` names.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.running.as_ref().map(|running| running.port)
    }

    /// Kills the server, and starts it again on its files and port.
    pub fn crash_and_restart(&mut self) {
        let Some(mut running) = self.running.take() else {
            panic!("a server that MONGODB_URL names is not this test's to end");
        };
        running.child.kill().expect("the server is killed");
        running.child.wait().expect("the server has ended");
        let directory = std::mem::take(&mut running.directory);
        let port = running.port;
        drop(running);
        self.running = Some(Running::start(directory, port));
    }
}

impl Running {
    fn start(directory: PathBuf, port: u16) -> Self {
        let log = fs::File::create(directory.join("log")).expect("the server's log");
        let child = Command::new(program())
            .arg(format!("127.0.0.1:{port}"))
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let mut running = Self {
            child,
            directory,
            port,
        };
        for _ in 0..ATTEMPTS {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return running;
            }
            if let Ok(Some(status)) = running.child.try_wait() {
                panic!("the server ended: {status}: {}", running.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the server does not listen: {}", running.log());
    }

    fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut log) = fs::File::open(self.directory.join("log")) {
            let _ = log.read_to_string(&mut text);
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.directory.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Returns a port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Returns the server's program, built once by Go; that of `LEFTFOLD_FERRETDB` if it is set.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(program) = env::var_os("LEFTFOLD_FERRETDB") {
            return program.into();
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCE);
        let program = source.join("../../target/tests/ferretdb");
        fs::create_dir_all(program.parent().expect("a directory")).expect("a place for the server");
        // Go keeps what it built, so this takes a moment when nothing changed, and is safe to run side by side.
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(&source)
            .status();
        match built {
            Ok(status) if status.success() => program,
            Ok(status) => panic!("go build of {} failed: {status}", source.display()),
            Err(error) => {
                panic!("the tests of the MongoDB store need Go to build their server: {error}")
            }
        }
    })
}
