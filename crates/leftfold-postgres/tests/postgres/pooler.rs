//! PgBouncer in transaction mode, between the store and the server.
//!
//! **Owns:** one PgBouncer for all tests: the program that `LEFTFOLD_PGBOUNCER` names, or the system's.
//! **Does not know:** what is tested.
//! **Invariants:** it ends with the process of the tests, since it reads from a pipe that ends with it.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::LazyLock,
};

use leftfold_postgres::{PostgresOptions, testing::Server};

use crate::server::{schema, server};

const PORT: u16 = 6432;

static POOLER: LazyLock<Child> = LazyLock::new(|| {
    let (child, socket) = start();
    for _ in 0..600 {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            return child;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("PgBouncer does not start");
});

/// The process, and where it will listen.
fn start() -> (Child, PathBuf) {
    let installed = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].map(PathBuf::from);
    let given = std::env::var_os("LEFTFOLD_PGBOUNCER").map(PathBuf::from);
    let program = given
        .into_iter()
        .chain(installed)
        .find(|path| path.exists());
    let program =
        program.expect("PgBouncer is not installed (scripts/newer-pgbouncer.sh builds it)");
    let directory = server().directory();
    let settings = directory.join("pgbouncer.ini");
    let (host, port) = (directory.display(), server().port());
    let text = format!(
        "[databases]\npostgres = host={host} port={port} user=leftfold\n[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\n\
         unix_socket_dir = {host}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 500\n\
         logfile = {host}/pgbouncer.log\n"
    );
    fs::write(&settings, text).unwrap();
    let mut command = Command::new("sh");
    let watch = "\"$1\" -q \"$2\" & pooler=$!; read -r _; kill -INT $pooler";
    command
        .args(["-c", watch, "watch"])
        .args([&program, &settings])
        .stdin(Stdio::piped())
        .stderr(Stdio::null());
    if let Some((user, group)) = Server::user() {
        chown(&settings, Some(user), Some(group)).unwrap();
        command.uid(user).gid(group);
    }
    let socket = directory.join(format!(".s.PGSQL.{PORT}"));
    (command.spawn().unwrap(), socket)
}

/// Options for a store of its own, behind the pooler.
pub(crate) fn fresh() -> PostgresOptions {
    let _ = POOLER.id();
    let host = server().directory().to_string_lossy().replace('/', "%2F");
    let options: PostgresOptions = format!("postgres://leftfold@{host}:{PORT}/postgres")
        .parse()
        .unwrap();
    options
        .behind_pooler()
        .with_schema(schema())
        .with_connections(4)
}
