//! A server as a process of its own, from its start to its end.
//!
//! **Owns:** the child process, its port and its directory. **Does not know:** requests.
//! **Invariants:** servers run with their defaults, unless their kind says what is set; each has an empty directory of its own;
//! process and directory are gone when the value is dropped.

use std::{
    ffi::OsString,
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use tempfile::TempDir;
use tokio::{net::TcpStream, time::sleep};

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Leftfold,
    /// Leftfold with users and keys.
    LeftfoldGuarded,
    /// Leftfold with TLS, users and keys.
    LeftfoldSecured,
    Umadb,
    Tephra,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Leftfold => "leftfold",
            Self::LeftfoldGuarded => "leftfold, keys",
            Self::LeftfoldSecured => "leftfold, TLS and keys",
            Self::Umadb => "umadb",
            Self::Tephra => "tephra",
        }
    }
}

/// Where the servers' programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) leftfold: Option<PathBuf>,
    pub(crate) umadb: Option<PathBuf>,
    pub(crate) tephra: Option<PathBuf>,
}

impl Programs {
    fn of(&self, kind: Kind) -> anyhow::Result<&Path> {
        let program = match kind {
            Kind::Leftfold | Kind::LeftfoldGuarded | Kind::LeftfoldSecured => &self.leftfold,
            Kind::Umadb => &self.umadb,
            Kind::Tephra => &self.tephra,
        };
        program
            .as_deref()
            .with_context(|| format!("where the program of {} is was not said", kind.name()))
    }
}

/// A port for one server.
///
/// Lies below the system's ephemeral ports. The system might hand out one of those before the server binds it, and then the
/// benchmark would measure another program.
fn free_port() -> anyhow::Result<u16> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let begin = 20_000 + u16::try_from(std::process::id() % 10_000)?;
    for _ in 0..2_000 {
        let port = begin + TRIED.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free")
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    /// What a client needs to be let in; `None`: nothing.
    pub(crate) access: Option<Access>,
    child: Child,
    directory: TempDir,
}

/// How a client is let in.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) key: String,
    /// The certificate of the authority, if connections are encrypted.
    pub(crate) authority: Option<PathBuf>,
}

impl Access {
    /// Makes a key that may do everything, and the certificates of an encrypted server.
    fn create(
        kind: Kind,
        program: &Path,
        data: &Path,
        directory: &Path,
    ) -> anyhow::Result<Option<Self>> {
        if !matches!(kind, Kind::LeftfoldGuarded | Kind::LeftfoldSecured) {
            return Ok(None);
        }
        let run = |command: &mut Command| {
            let output = command.output()?;
            anyhow::ensure!(output.status.success(), "{output:?}");
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let create = ["keys", "create", "bench", "--grant", "admin", "--data"];
        let key = run(Command::new(program).args(create).arg(data))?;
        let certs = directory.join("certs");
        let authority = match kind {
            Kind::LeftfoldSecured => {
                run(Command::new(program).arg("certs").arg(&certs))?;
                Some(certs.join("ca.crt"))
            }
            _ => None,
        };
        Ok(Some(Self { key, authority }))
    }

    /// The flags of the server.
    fn flags(&self, directory: &Path) -> Vec<OsString> {
        let mut flags = vec!["--authentication".into(), "on".into()];
        if self.authority.is_some() {
            for (flag, file) in [
                ("--tls-certificate-file", "certs/server.crt"),
                ("--tls-key-file", "certs/server.key"),
            ] {
                flags.extend([flag.into(), directory.join(file).into_os_string()]);
            }
        }
        flags
    }
}

impl Server {
    pub(crate) async fn start(
        kind: Kind,
        programs: &Programs,
        parent: &Path,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("server-")
            .tempdir_in(parent)?;
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        let data = directory.path().join("data");
        let program = programs.of(kind)?;
        let access = Access::create(kind, program, &data, directory.path())?;
        let mut command = Command::new(program);
        match kind {
            Kind::Leftfold | Kind::LeftfoldGuarded | Kind::LeftfoldSecured => {
                command.args(["serve", "--listen", &address, "--data"])
            }
            Kind::Umadb => command.args(["--listen", &address, "--db-path"]),
            Kind::Tephra => command.args(["--bind", &address, "--data-dir"]),
        };
        let log = File::create(directory.path().join("log"))?;
        let child = command
            .arg(&data)
            .args(
                access
                    .iter()
                    .flat_map(|access| access.flags(directory.path())),
            )
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut server = Self {
            kind,
            port,
            access,
            child,
            directory,
        };
        server.listening().await?;
        Ok(server)
    }

    /// Waits until the server takes calls.
    async fn listening(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.is_ready().await {
            let ended = self.child.try_wait()?;
            if ended.is_some() || begun.elapsed() > START {
                anyhow::bail!("does not listen: {}", self.state());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Ours answers probes while it opens its store, and prints its addresses when it takes calls.
    async fn is_ready(&self) -> bool {
        let listens = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await;
        let said = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let is_open = match self.kind {
            Kind::Leftfold | Kind::LeftfoldGuarded | Kind::LeftfoldSecured => {
                said.contains("leftfold serves")
            }
            Kind::Umadb | Kind::Tephra => true,
        };
        listens.is_ok() && is_open
    }

    /// What became of it, with the end of what it said: for errors of those who asked it.
    pub(crate) fn state(&self) -> String {
        let (name, process) = (self.kind.name(), self.process());
        let said = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        let end = lines.get(lines.len().saturating_sub(20)..);
        let state = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let state = state.lines().find(|line| line.starts_with("State:"));
        format!(
            "{name}, process {process}, {}; it said:\n{}",
            state.unwrap_or("gone"),
            end.unwrap_or_default().join("\n")
        )
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
