//! `leftfold keys`: API keys of a store, listed, made and revoked.
//!
//! **Owns:** the subcommands. **Does not know:** how keys are kept.
//! **Invariants:** a key is printed once, when it is made.

use std::io::Write;

use serde_json::json;

use super::{
    access_admin::{Admin, Key},
    output,
};
use crate::{cli, display};

pub(crate) async fn run(arguments: cli::Keys) -> anyhow::Result<()> {
    let admin = match &arguments.command {
        cli::KeysCommand::Create { .. } => Admin::open_or_create(&arguments.data).await?,
        cli::KeysCommand::List => Admin::open_to_read(&arguments.data).await?,
        _ => Admin::open(&arguments.data).await?,
    };
    let outcome = change(&admin, arguments).await;
    admin.close().await?;
    outcome
}

async fn change(admin: &Admin, arguments: cli::Keys) -> anyhow::Result<()> {
    let mut out = output();
    match arguments.command {
        cli::KeysCommand::List => {
            for key in admin.keys().await? {
                print(&mut out, &key, arguments.json)?;
            }
        }
        cli::KeysCommand::Create {
            name,
            grants,
            expires,
        } => {
            let (id, key) = admin.create_key(&name, &grants, expires).await?;
            if arguments.json {
                writeln!(out, "{}", json!({"id": id, "key": key}))?;
            } else {
                writeln!(out, "{key}")?;
            }
        }
        cli::KeysCommand::Revoke { id } => admin.revoke_key(&id).await?,
    }
    Ok(out.flush()?)
}

fn print(out: &mut impl Write, key: &Key, json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(writeln!(
            out,
            "{}",
            display::json(&serde_json::to_string(key)?)
        )?);
    }
    let state = match (&key.expires, key.revoked) {
        (_, true) => "revoked".to_owned(),
        (Some(expires), false) => format!("until {expires}"),
        (None, false) => "in use".to_owned(),
    };
    let grants = key.grants.join(", ");
    let line = format!("{}  {state}  [{grants}]  {}", key.id, key.name);
    Ok(writeln!(out, "{}", display::escape(&line))?)
}
