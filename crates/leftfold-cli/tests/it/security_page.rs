//! The page for operators in docs/security.md: every command of it, run as it stands.
//!
//! **Owns:** taking the commands out of the page, and the port they use. **Does not know:** what they do.

use std::{
    env, fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use crate::served::binary;

/// The section whose commands run.
const SECTION: &str = "## From installation to running\n";

/// The commands of the page, in its order.
fn commands() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once(SECTION).unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split_once("```").unwrap().0);
    blocks.collect()
}

#[test]
fn every_command_of_the_page_for_operators_runs_as_it_stands() {
    let commands = commands();
    for named in ["certs", "doctor", "serve", "users", "keys", "audit"] {
        let named = format!("leftfold {named}");
        assert!(commands.contains(&named), "the page has no {named}");
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("page.sh");
    // What a failed command leaves running ends with the script.
    let guarded = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{commands}");
    fs::write(&script, guarded.replace("2113", &port)).unwrap();
    let beside = Path::new(binary()).parent().unwrap().to_owned();
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([beside].into_iter().chain(env::split_paths(&path))).unwrap();
    let ran = Command::new("timeout")
        .args(["120", "bash", "-xeuo", "pipefail"])
        .arg(&script)
        .current_dir(directory.path())
        .env("PATH", path)
        // The default port may be taken on this machine.
        .env("LEFTFOLD_LISTEN", format!("127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    let printed = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{printed}\n{said}");
    for expected in [
        "kurrentdb://USER:PASSWORD@",
        "ann",
        "LF0403",
        "each as it was written",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}\n{said}");
    }
    let password = fs::read_to_string(directory.path().join("admin-password")).unwrap();
    assert!(!printed.contains(password.trim()), "{printed}");
}
