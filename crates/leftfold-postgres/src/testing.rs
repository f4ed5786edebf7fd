//! A private PostgreSQL server for tests: real, empty, gone afterwards.
//!
//! **Owns:** [`Server`]. **Does not know:** the store.
//! **Invariants:** the server listens on a unix socket in a directory of its own and nowhere else, unless asked to; it ends
//! with the process that started it, however that ends; it keeps `fsync` on, so what is measured or killed is real.

#![expect(
    clippy::missing_panics_doc,
    clippy::expect_used,
    clippy::panic,
    reason = "a test without its server stops at once and says why"
)]

use std::{
    fs,
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

/// Runs the server until its standard input ends, which it does when the process that started it ends.
const WATCH: &str = r#"
"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses="$3" >"$2/log" 2>&1 &
server=$!
echo "$server" >"$2/pid"
trap '' INT TERM HUP
read -r _ || true
kill -QUIT "$server" 2>/dev/null
wait "$server" 2>/dev/null
rm -rf "$2"
"#;

/// A running server. It ends, and its directory goes, when this is dropped.
#[derive(Debug)]
pub struct Server {
    directory: PathBuf,
    programs: PathBuf,
    owner: Option<(u32, u32)>,
    listen: String,
    watch: Child,
    databases: AtomicU32,
}

impl Server {
    /// Makes and starts a server. Its programs are those of the directory that `LEFTFOLD_POSTGRES_BIN` names, or the newest
    /// of Debian's.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same; it also listens on TCP at these addresses, on the port [`Self::port`], and has these lines in its settings.
    #[must_use]
    pub fn start_with(settings: &str) -> Self {
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
            listen: String::new(),
            databases: AtomicU32::new(0),
        };
        let data = server.directory.join("data");
        server.run(
            "initdb",
            &[
                "-D",
                &data.to_string_lossy(),
                "-U",
                "leftfold",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
            ],
        );
        let lines = "shared_buffers = 128MB\nmax_connections = 200\nlc_messages = 'C'\nunix_socket_permissions = 0777\n";
        server.configure(&format!("{lines}{settings}\n"));
        server.launch();
        server
    }

    /// Adds lines to the settings; they count from the next start or reload.
    pub fn configure(&self, lines: &str) {
        let path = self.directory.join("data/postgresql.conf");
        let before = fs::read_to_string(&path).expect("settings can be read");
        fs::write(&path, before + lines).expect("settings can be written");
    }

    /// Starts the server again after it was stopped or killed.
    pub fn launch(&mut self) {
        end(&mut self.watch);
        let _ = fs::remove_file(self.directory.join("data/postmaster.pid"));
        let mut command = Command::new("sh");
        let (programs, directory) = (self.programs.as_os_str(), self.directory.as_os_str());
        command
            .args(["-c", WATCH, "watch"])
            .arg(programs)
            .arg(directory)
            .arg(&self.listen);
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
            let mut command = Command::new(self.programs.join("psql"));
            command
                .args(["-X", "-h"])
                .arg(&self.directory)
                .args(["-U", "leftfold", "-d", "postgres", "-c", "select 1"]);
            let ready = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            if ready.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the server does not start: {}", self.log());
    }

    /// Kills the server's main process as a crash would: nothing is finished, nothing is told.
    pub fn kill(&mut self) {
        let id = self.process();
        signal("KILL", id);
        // Its children see it gone and end; only then may another one be started on the same data.
        for _ in 0..600 {
            let listed = Command::new("ps")
                .args(["-e", "-o", "args="])
                .output()
                .expect("ps runs");
            let mine = self.directory.to_string_lossy().into_owned();
            let children = String::from_utf8_lossy(&listed.stdout)
                .lines()
                .any(|line| line.starts_with("postgres") && line.contains(&mine));
            let alive = Path::new(&format!("/proc/{id}/task")).exists();
            if !children && !alive && !self.socket_answers() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("the server does not end");
    }

    fn socket_answers(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.directory.join(".s.PGSQL.5432")).is_ok()
    }

    /// The number of the server's main process.
    #[must_use]
    pub fn process(&self) -> u32 {
        let text = fs::read_to_string(self.directory.join("pid")).expect("the server's number");
        text.trim().parse().expect("a number")
    }

    /// Ends one session of the server as a crash of that process would.
    pub fn kill_session(&self, process: i32) {
        signal("KILL", u32::try_from(process).expect("a process number"));
    }

    /// The address of a fresh, empty database.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("create database {name}"));
        self.address(&name)
    }

    /// The address of a database.
    #[must_use]
    pub fn address(&self, database: &str) -> String {
        let host = self.directory.to_string_lossy().replace('/', "%2F");
        format!("postgres://leftfold@{host}/{database}")
    }

    /// The directory with the socket.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory with the server's programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// What the server wrote about itself.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Runs a statement with the server's own client; answers its output.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let host = self.directory.to_string_lossy().into_owned();
        self.run(
            "psql",
            &[
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                &host,
                "-U",
                "leftfold",
                "-d",
                database,
                "-c",
                sql,
            ],
        )
    }

    /// Runs one of the server's programs to its end; answers its output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(self.programs.join(program));
        command
            .args(arguments)
            .stdin(Stdio::null())
            .current_dir("/tmp");
        self.own(&mut command);
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{program} does not run: {error}"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} fails: {told}");
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
        end(&mut self.watch);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Lets the process that watches see the end of its input, and waits until it is done.
fn end(watch: &mut Child) {
    drop(watch.stdin.take());
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
    if let Some(named) = std::env::var_os("LEFTFOLD_POSTGRES_BIN") {
        return named.into();
    }
    let found = PLACES
        .iter()
        .map(Path::new)
        .find(|place| place.join("initdb").exists());
    found.map(Path::to_owned).unwrap_or_else(|| {
        panic!("PostgreSQL is not installed (on Debian: apt-get install postgresql), and LEFTFOLD_POSTGRES_BIN names no directory")
    })
}

/// The user and group to run as, if this is root, whom the server refuses: `postgres`, else `nobody`.
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
