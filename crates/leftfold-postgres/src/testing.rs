//! A private PostgreSQL server for tests, removed afterwards.
//!
//! **Owns:** [`Server`]. **Does not know:** the store.
//! **Invariants:** the server listens on a Unix socket in a directory of its own only, unless the settings say otherwise. It
//! ends with the process that started it, however that ends. It keeps `fsync` on.

#![expect(
    clippy::missing_panics_doc,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test without its server stops at once and says why"
)]

use std::{
    fs,
    io::Write,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// Where to look for the programs, if no variable names the place: the newest first.
const PLACES: [&str; 5] = [
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/postgresql/14/bin",
    "/usr/lib/postgresql/13/bin",
];

/// The port, of which no more than the name of a socket is used unless the settings listen on TCP.
const PORT: u16 = 5432;

/// Runs the server until its standard input ends, which it does when the process that started it ends.
const WATCH: &str = r#"
"$1/postgres" -D "$2/data" -k "$2" >>"$2/log" 2>&1 &
server=$!
echo "$server" >"$2/pid"
trap '' INT TERM HUP
read -r word || word=end
kill -QUIT "$server" 2>/dev/null
wait "$server" 2>/dev/null
[ "$word" = keep ] || rm -rf "$2"
"#;

/// A running server. It ends, and its directory goes, when this is dropped.
#[derive(Debug)]
pub struct Server {
    directory: PathBuf,
    programs: PathBuf,
    owner: Option<(u32, u32)>,
    port: u16,
    watch: Child,
    databases: AtomicU32,
}

impl Server {
    /// Creates and starts a server. Its programs are in the directory that `LEFTFOLD_POSTGRES_BIN` names, or the newest that
    /// Debian installed.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Creates and starts a server with additional lines in `postgresql.conf`.
    #[must_use]
    pub fn start_with(settings: &str) -> Self {
        Self::start_at(PORT, settings)
    }

    /// Creates and starts a server on this port, which is a part of the name of its socket.
    #[must_use]
    pub fn start_at(port: u16, settings: &str) -> Self {
        let programs = programs();
        let owner = owner();
        let directory = tempfile::Builder::new()
            .prefix("leftfold-pg-")
            .tempdir_in("/tmp")
            .expect("a temporary directory");
        let directory = directory.keep();
        if let Some((user, group)) = owner {
            chown(&directory, Some(user), Some(group))
                .expect("the directory goes to the server's user");
        }
        let mut server = Self {
            watch: idle(),
            directory,
            programs,
            owner,
            port,
            databases: AtomicU32::new(0),
        };
        let data = server.directory.join("data");
        let mut make = Command::new(server.programs.join("initdb"));
        make.arg("-D").arg(&data).args([
            "-U",
            "leftfold",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]);
        server.finish(make);
        let lines = "listen_addresses = ''\nshared_buffers = 128MB\nmax_connections = 200\n\
                     lc_messages = 'C'\nunix_socket_permissions = 0777\n";
        server.configure(&format!("{lines}port = {port}\n{settings}\n"));
        server.launch();
        server
    }

    /// Appends lines to `postgresql.conf`. They take effect at the next start or reload.
    pub fn configure(&self, lines: &str) {
        let path = self.directory.join("data/postgresql.conf");
        let before = fs::read_to_string(&path).expect("settings can be read");
        fs::write(&path, before + lines).expect("settings can be written");
    }

    /// Starts the server again after it was stopped or killed.
    pub fn launch(&mut self) {
        end(&mut self.watch, "keep\n");
        let _ = fs::remove_file(self.directory.join("data/postmaster.pid"));
        let mut command = Command::new("sh");
        let (programs, directory) = (self.programs.as_os_str(), self.directory.as_os_str());
        command
            .args(["-c", WATCH, "watch"])
            .arg(programs)
            .arg(directory);
        self.own(&mut command);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.watch = command.spawn().expect("the server starts");
        self.await_ready();
    }

    fn await_ready(&mut self) {
        for _ in 0..600 {
            let mut command = Command::new(client("psql"));
            command.args(["-X", "-h"]).arg(&self.directory);
            command.args([
                "-p",
                &self.port.to_string(),
                "-U",
                "leftfold",
                "-d",
                "postgres",
                "-c",
                "select 1",
            ]);
            let ready = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            if ready.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the server does not start: {}", self.log());
    }

    /// Kills the main process of the server with SIGKILL, and waits until all its processes have ended.
    pub fn kill(&mut self) {
        signal("KILL", self.process());
        // The child processes end by themselves. Until then no other server may start on the same data.
        for _ in 0..600 {
            if !self.is_running() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("the server does not end");
    }

    /// Whether a process of the server is alive: all of them work in the directory of its data.
    fn is_running(&self) -> bool {
        let data = self.directory.join("data");
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut places =
            processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
        places.any(|place| place == data)
    }

    /// The number of the server's main process.
    #[must_use]
    pub fn process(&self) -> u32 {
        let text = fs::read_to_string(self.directory.join("pid")).expect("the server's number");
        text.trim().parse().expect("a number")
    }

    /// Kills the process of one session with SIGKILL.
    pub fn kill_session(&self, process: i32) {
        signal("KILL", u32::try_from(process).expect("a process number"));
    }

    /// Creates an empty database and returns its address.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("create database {name}"));
        self.address(&name)
    }

    /// Returns the address of a database.
    #[must_use]
    pub fn address(&self, database: &str) -> String {
        let host = self.directory.to_string_lossy().replace('/', "%2F");
        format!("postgres://leftfold@{host}:{}/{database}", self.port)
    }

    /// The directory with the socket.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user and group whom servers run as, if not this one.
    #[must_use]
    pub fn user() -> Option<(u32, u32)> {
        owner()
    }

    /// Returns the log of the server.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Runs a statement with `psql` and returns its output.
    ///
    /// The client is the one that Debian installed, whatever the version of the server.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.run(
            "psql",
            &[
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                database,
                "-c",
                sql,
            ],
        )
    }

    /// Runs a client program against this server and returns its output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(client(program));
        command.arg("-h").arg(&self.directory).args([
            "-p",
            &self.port.to_string(),
            "-U",
            "leftfold",
        ]);
        command.args(arguments);
        self.finish(command)
    }

    /// Runs a program as the server's user, to its end.
    fn finish(&self, mut command: Command) -> String {
        command.stdin(Stdio::null()).current_dir("/tmp");
        self.own(&mut command);
        let name = command.get_program().to_string_lossy().into_owned();
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{name} does not run: {error}"));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} fails: {message}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn own(&self, command: &mut Command) {
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.watch, "end\n");
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Lets the process that watches see the end of its input, and waits until it is done.
fn end(watch: &mut Child, word: &str) {
    if let Some(mut input) = watch.stdin.take() {
        // It may be gone already.
        let _ = input.write_all(word.as_bytes());
    }
    let _ = watch.wait();
}

/// A process that does nothing, before there is a server.
fn idle() -> Child {
    Command::new("true").spawn().expect("true runs")
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "process {process} cannot be signalled"
    );
}

fn programs() -> PathBuf {
    std::env::var_os("LEFTFOLD_POSTGRES_BIN").map_or_else(|| installed("initdb"), PathBuf::from)
}

/// One of Debian's client programs.
fn client(program: &str) -> PathBuf {
    installed(program).join(program)
}

/// The directory of the newest of Debian's versions that has this program.
fn installed(program: &str) -> PathBuf {
    let places = PLACES.iter().map(Path::new);
    let found = places
        .into_iter()
        .find(|place| place.join(program).exists());
    found.map(Path::to_owned).unwrap_or_else(|| {
        panic!("PostgreSQL's {program} is not installed (on Debian: apt-get install postgresql)")
    })
}

/// Returns the user and group to run the server as when this is root, which PostgreSQL refuses: `postgres`, else `nobody`.
fn owner() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id")
            .args(arguments)
            .output()
            .expect("id runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim().parse::<u32>().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    ["postgres", "nobody"]
        .iter()
        .find_map(|user| Some((id(&["-u", user])?, id(&["-g", user])?)))
}
