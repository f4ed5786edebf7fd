//! `leftfold groups`: groups of competing consumers, how far they are, and what they parked.
//!
//! **Owns:** the forms of the answers. **Does not know:** how a group shares its events.
//! **Invariants:** the server that runs a group applies decisions about parked events; a command never claims the group.

use std::{io::Write, sync::Arc};

use leftfold_model::Position;
use leftfold_server::{
    groups::{
        GroupCatalog, GroupDefinition, GroupId, GroupOverview, GroupSettings, ParkedMessages,
        Settled,
    },
    json::time_text,
};
use leftfold_store::consumers::{LIST_MAX, ParkedEvent};
use serde_json::{Value, json};

use super::{output, printer::Printer};
use crate::{cli, display, group_args::GroupsCommand, open};

pub(crate) async fn run(arguments: cli::Groups) -> anyhow::Result<()> {
    let store = match arguments.command {
        GroupsCommand::Create { .. } => open::for_writing(&arguments.data).await?,
        GroupsCommand::List | GroupsCommand::Show(_) | GroupsCommand::Parked(_) => {
            open::existing(&arguments.data).await?
        }
        _ => open::existing_for_writing(&arguments.data).await?,
    };
    let groups = GroupCatalog::new(Arc::clone(&store));
    let mut out = Printer {
        json: arguments.json,
        out: output(),
    };
    match arguments.command {
        GroupsCommand::List => {
            for definition in groups.list().await? {
                let overview = groups.overview(definition).await?;
                out.print(|| overview_json(&overview), || overview_text(&overview))?;
            }
        }
        GroupsCommand::Show(group) => {
            let definition = groups.get(&group.id()).await?;
            let overview = groups.overview(definition).await?;
            out.print(|| whole_json(&overview), || whole_text(&overview))?;
        }
        GroupsCommand::Create {
            group,
            settings: given,
            filter,
        } => {
            let (id, mut settings) = (group.id(), GroupSettings::default());
            given.apply(&id.source, &mut settings)?;
            groups.create(&id, settings, filter.spec()).await?;
            changed(&mut out, &id, "created")?;
        }
        GroupsCommand::Update {
            group,
            settings: given,
        } => {
            let id = group.id();
            let mut settings = groups.get(&id).await?.settings;
            given.apply(&id.source, &mut settings)?;
            groups.update(&id, settings).await?;
            changed(&mut out, &id, "updated")?;
        }
        GroupsCommand::Delete(group) => {
            groups.delete(&group.id()).await?;
            changed(&mut out, &group.id(), "deleted")?;
        }
        GroupsCommand::Parked(group) => {
            let definition = groups.get(&group.id()).await?;
            list_parked(&parked(&groups, &definition)?, &mut out).await?;
        }
        GroupsCommand::Replay { group, count } => {
            let definition = groups.get(&group.id()).await?;
            let settled = parked(&groups, &definition)?.replay(count).await?;
            print_settled(&mut out, settled, "replayed")?;
        }
        GroupsCommand::Truncate(group) => {
            let definition = groups.get(&group.id()).await?;
            let settled = parked(&groups, &definition)?.truncate().await?;
            print_settled(&mut out, settled, "truncated")?;
        }
    }
    out.out.flush()?;
    Ok(store.close().await?)
}

fn parked(groups: &GroupCatalog, definition: &GroupDefinition) -> anyhow::Result<ParkedMessages> {
    let store = Arc::clone(groups.event_store());
    Ok(ParkedMessages::new(store, definition)?)
}

fn changed(out: &mut Printer, id: &GroupId, how: &str) -> anyhow::Result<()> {
    let name = id.to_string();
    let text = || format!("{} {how}", display::escape(&name));
    Ok(out.print(|| json!({ how: name }), text)?)
}

fn print_settled(out: &mut Printer, settled: Settled, how: &str) -> anyhow::Result<()> {
    let count = settled.count();
    let text = || match settled {
        Settled::Done(_) => format!("{count} parked events {how}"),
        _ => format!("{count} parked events will be {how}"),
    };
    Ok(out.print(|| json!({ how: count }), text)?)
}

async fn list_parked(parked: &ParkedMessages, out: &mut Printer) -> anyhow::Result<()> {
    let mut after = Position::START;
    loop {
        let page = parked.list(after, LIST_MAX).await?;
        for event in &page {
            after = event.position;
            out.print(|| parked_json(event), || parked_text(event))?;
        }
        if page.len() < LIST_MAX {
            return Ok(());
        }
    }
}

fn counts(overview: &GroupOverview) -> (u64, Option<&str>) {
    let status = overview.status.as_ref();
    let holder = status.and_then(|status| status.holder.as_ref());
    let owner = holder.map(|(holder, _)| holder.split(' ').next().unwrap_or(holder));
    (status.map_or(0, |status| status.parked), owner)
}

fn overview_text(overview: &GroupOverview) -> String {
    let (parked, owner) = counts(overview);
    let owner = match owner {
        Some(owner) => format!("at {}", display::escape(owner)),
        None => "no consumers".to_owned(),
    };
    format!(
        "{:>10}  lag {}  parked {parked}  {owner}  {}",
        overview.position,
        overview.lag(),
        display::escape(&overview.definition.id.to_string()),
    )
}

fn overview_json(overview: &GroupOverview) -> Value {
    let (parked, owner) = counts(overview);
    let id = &overview.definition.id;
    json!({ "stream": id.source.to_string(), "group": id.name.as_str(), "position": overview.position.get(),
        "lag": overview.lag(), "parked": parked, "owner": owner })
}

fn whole_text(overview: &GroupOverview) -> String {
    let settings = serde_json::to_value(&overview.definition.settings).unwrap_or_default();
    let settings = settings.as_object().into_iter().flatten();
    let lines = settings
        .map(|(name, value)| format!("\n  {name}: {}", display::escape(&value.to_string())));
    format!("{}{}", overview_text(overview), lines.collect::<String>())
}

fn whole_json(overview: &GroupOverview) -> Value {
    let mut whole = overview_json(overview);
    if let Some(fields) = whole.as_object_mut() {
        let definition = &overview.definition;
        fields.insert("settings".into(), json!(definition.settings));
        fields.insert("filter".into(), json!(definition.filter));
    }
    whole
}

fn parked_text(event: &ParkedEvent) -> String {
    format!(
        "{:>10}  {}  {}  deliveries {}  {}",
        event.position,
        time_text(event.time),
        display::escape(&event.key),
        event.attempts,
        display::escape(&event.reason),
    )
}

fn parked_json(event: &ParkedEvent) -> Value {
    json!({ "position": event.position.get(), "stream": event.key, "reason": event.reason,
        "deliveries": event.attempts, "time": time_text(event.time) })
}
