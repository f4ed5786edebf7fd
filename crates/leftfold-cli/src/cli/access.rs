//! The command line of certificates, users, keys and the audit.
//!
//! **Owns:** their flags and texts. **Does not know:** what is done with them.
//! **Invariants:** no flag takes a password or a key: these come from files.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use leftfold_server::access::Grant;

use super::Data;

#[derive(Debug, Args)]
pub(crate) struct Certs {
    /// Where the files are written; created if it is missing.
    pub(crate) directory: PathBuf,
    /// A name or an IP address of the server; may be given several times.
    #[arg(long = "host", value_name = "HOST", default_values = ["localhost", "127.0.0.1", "::1"])]
    pub(crate) hosts: Vec<String>,
    /// Issue a certificate for a user instead, who authenticates by it.
    #[arg(long, value_name = "LOGIN", conflicts_with = "hosts", value_parser = login)]
    pub(crate) user: Option<String>,
}

/// A login that can be a part of the name of a file.
fn login(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(plain) && !text.starts_with('.') {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 64 of the characters a-z, A-Z, 0-9, -, _, . and @, no . in front")
}

#[derive(Debug, Args)]
pub(crate) struct Users {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Print the result as JSON, one object per line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: UsersCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Lists all users.
    List,
    /// Creates a user.
    Create {
        /// By which the user authenticates.
        login: String,
        /// For people. Default: the login.
        #[arg(long, value_name = "TEXT")]
        full_name: Option<String>,
        /// A group; may be given several times. Members of $admins may do everything, those of $ops operate the server.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// File with the password; `-` reads standard input.
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
    },
    /// Sets the password of a user.
    Password {
        /// The user.
        login: String,
        /// File with the password; `-` reads standard input.
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
    },
    /// Sets the groups of a user.
    Groups {
        /// The user.
        login: String,
        /// The groups, all of them.
        groups: Vec<String>,
    },
    /// Lets a user authenticate no more.
    Disable {
        /// The user.
        login: String,
    },
    /// Lets a user authenticate again.
    Enable {
        /// The user.
        login: String,
    },
    /// Deletes a user.
    Delete {
        /// The user.
        login: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Print the result as JSON, one object per line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: KeysCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Lists all keys, the oldest first.
    List,
    /// Makes a key and prints it. It is not kept and cannot be printed again.
    Create {
        /// What it is for.
        name: String,
        /// read, append or admin, alone or with :prefix=TEXT, :category=NAME or :tag=TAG; may be given several times.
        #[arg(long = "grant", value_name = "GRANT", required = true)]
        grants: Vec<Grant>,
        /// When it ends, as 2027-01-31T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires: Option<jiff::Timestamp>,
    },
    /// Ends a key.
    Revoke {
        /// The id of the key, as the list shows it.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Print JSON Lines.
    #[arg(long)]
    pub(crate) json: bool,
    /// Check the entries without printing them.
    #[arg(long)]
    pub(crate) verify: bool,
}
