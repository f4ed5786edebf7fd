//! `leftfold users`: users of a store, listed and changed.
//!
//! **Owns:** the subcommands and where passwords come from. **Does not know:** how users are kept.
//! **Invariants:** a password is read from a file or from standard input, never from the command line; none is printed unless it
//! was made here.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use super::{
    access_admin::{Admin, User},
    output,
};
use crate::{cli, display, open};
use anyhow::Context;

pub(crate) async fn run(arguments: cli::Users) -> anyhow::Result<()> {
    let admin = match &arguments.command {
        cli::UsersCommand::Create { .. } => Admin::open_or_create(&arguments.data).await?,
        cli::UsersCommand::List => Admin::open_to_read(&arguments.data).await?,
        _ => Admin::open(&arguments.data).await?,
    };
    let outcome = change(&admin, arguments).await;
    admin.close().await?;
    outcome
}

async fn change(admin: &Admin, arguments: cli::Users) -> anyhow::Result<()> {
    let mut out = output();
    match arguments.command {
        cli::UsersCommand::List => {
            for user in admin.users().await? {
                print(&mut out, &user, arguments.json)?;
            }
        }
        cli::UsersCommand::Create {
            login,
            full_name,
            groups,
            password_file,
        } => {
            let password = password(&password_file)?;
            let full_name = full_name.as_deref().unwrap_or(&login);
            admin
                .create_user(&login, &password, full_name, groups)
                .await?;
        }
        cli::UsersCommand::Password {
            login,
            password_file,
        } => {
            admin
                .set_password(&login, &password(&password_file)?)
                .await?;
        }
        cli::UsersCommand::Groups { login, groups } => {
            admin.set_groups(&login, groups).await?;
        }
        cli::UsersCommand::Disable { login } => admin.set_user_disabled(&login, true).await?,
        cli::UsersCommand::Enable { login } => admin.set_user_disabled(&login, false).await?,
        cli::UsersCommand::Delete { login } => admin.delete_user(&login).await?,
    }
    Ok(out.flush()?)
}

/// The password in a file; `-` is standard input. A line end after it is no part of it.
fn password(file: &Path) -> anyhow::Result<String> {
    let text = if file == Path::new("-") {
        io::read_to_string(io::stdin()).context("cannot read standard input")?
    } else {
        fs::read_to_string(file).map_err(|error| open::cannot_read(file, "read", error))?
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn print(out: &mut impl Write, user: &User, json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(writeln!(
            out,
            "{}",
            display::json(&serde_json::to_string(user)?)
        )?);
    }
    let state = if user.disabled { "disabled" } else { "enabled" };
    let groups = user.groups.join(", ");
    let line = format!("{}  {state}  [{groups}]  {}", user.login, user.full_name);
    Ok(writeln!(out, "{}", display::escape(&line))?)
}
