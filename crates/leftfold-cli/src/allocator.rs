//! How the system's allocator gives memory back.
//!
//! **Owns:** [`set_up`]. **Does not know:** commands.
//! **Invariants:** a process that was started with settings of the allocator keeps these; one that cannot be started again goes
//! on as it is.
//!
//! After a program has freed a large block, the allocator of glibc takes blocks of this size from heaps of single threads and
//! keeps them there. A server whose requests and responses have up to 16 MiB held 450 MiB and more, half of it freed
//! (docs/performance.md). A fixed threshold has large blocks always returned. It is read when a process starts.

/// Starts the program again, with the same arguments and as the same process, with settings under which large blocks of memory
/// are returned to the system. Call it before anything else is started.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn set_up() {
    use std::{env, os::unix::process::CommandExt, process::Command};

    const THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "1048576");
    if env::var_os(THRESHOLD.0).is_some() || env::var_os("GLIBC_TUNABLES").is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else {
        return;
    };
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    // It returns only if it failed, for example because the file was replaced: the server then works as well, and holds more.
    let _ = Command::new(program)
        .arg0(name)
        .args(arguments)
        .env(THRESHOLD.0, THRESHOLD.1)
        .exec();
}

/// Other allocators return memory as they see fit.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn set_up() {}
