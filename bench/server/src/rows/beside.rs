//! Leftfold beside one peer: appends to a log that begins empty.
//!
//! **Owns:** the rows that UmaDB's wire and the own wires have in common. **Does not know:** how a client asks.
//! **Invariants:** every row has servers of its own with empty logs, so that no row pays for the one before.

use crate::{
    closed::{self, Work},
    outcome::Outcome,
    plan::Plan,
    report::Report,
    server::Kind,
    wire::Wire,
};

use super::{
    Side, big_log, counted, in_turn, start,
    work::{Appending, Empty, Guard},
};

/// What is measured on one pair of wires.
#[derive(Debug)]
pub(super) struct Section {
    /// How the names of its rows begin.
    pub(super) name: &'static str,
    pub(super) sides: [(Kind, Wire); 2],
    /// The sides where many callers have one connection, or where someone follows.
    pub(super) shared: [(Kind, Wire); 2],
    pub(super) readers: &'static [u64],
}

/// Who appends how much, and under which condition.
#[derive(Clone, Copy, Debug)]
struct Appends {
    callers: u64,
    events: usize,
    guard: Guard,
    shared: bool,
}

/// UmaDB's published client against both servers.
pub(crate) async fn umadb_wire(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let sides = [(Kind::Leftfold, Wire::Umadb), (Kind::Umadb, Wire::Umadb)];
    let section = Section {
        name: "umadb wire",
        sides,
        shared: sides,
        readers: &[1, 8, 16],
    };
    for callers in plan.choose(&[1, 8, 64, 256], 8) {
        empty(plan, report, &section, callers, false).await?;
    }
    for callers in plan.choose(&[1, 8, 64, 256], 8) {
        appends(plan, report, &section, single(callers, Guard::None)).await?;
    }
    for (callers, events) in plan.choose(&[(1, 10), (8, 10), (1, 100), (8, 100)], (8, 10)) {
        appends(plan, report, &section, batches(callers, events)).await?;
    }
    for callers in plan.choose(&[1, 8, 64], 8) {
        appends(plan, report, &section, single(callers, Guard::OwnTag)).await?;
    }
    big_log::rows(plan, report, &section).await
}

/// tephra by its published client beside Leftfold by its own.
pub(crate) async fn own_wires(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let section = Section {
        name: "own wires",
        sides: [
            (Kind::Leftfold, Wire::Leftfold),
            (Kind::Tephra, Wire::TephraBlocking),
        ],
        shared: [
            (Kind::Leftfold, Wire::Leftfold),
            (Kind::Tephra, Wire::TephraShared),
        ],
        readers: &[1, 8],
    };
    for callers in plan.choose(&[1, 8, 64], 8) {
        empty(plan, report, &section, callers, false).await?;
    }
    for callers in plan.choose(&[64, 256], 64) {
        empty(plan, report, &section, callers, true).await?;
    }
    for callers in plan.choose(&[1, 8, 64], 8) {
        appends(plan, report, &section, single(callers, Guard::None)).await?;
    }
    for callers in plan.choose(&[64, 256], 64) {
        let shared = Appends {
            shared: true,
            ..single(callers, Guard::None)
        };
        appends(plan, report, &section, shared).await?;
    }
    for (callers, events) in plan.choose(&[(1, 100), (8, 100)], (8, 100)) {
        appends(plan, report, &section, batches(callers, events)).await?;
    }
    for callers in plan.choose(&[1, 8, 64], 8) {
        appends(plan, report, &section, single(callers, Guard::OwnTag)).await?;
    }
    big_log::rows(plan, report, &section).await
}

fn single(callers: u64, guard: Guard) -> Appends {
    Appends {
        callers,
        events: 1,
        guard,
        shared: false,
    }
}

fn batches(callers: u64, events: usize) -> Appends {
    Appends {
        events,
        ..single(callers, Guard::None)
    }
}

async fn empty(
    plan: &Plan,
    report: &mut Report,
    section: &Section,
    callers: u64,
    shared: bool,
) -> anyhow::Result<()> {
    let name = format!(
        "{}: empty call, {}{}",
        section.name,
        counted(callers, "caller"),
        on_one(shared)
    );
    if !plan.wants(&name) {
        return Ok(());
    }
    let sides = if shared {
        &section.shared
    } else {
        &section.sides
    };
    let sides = start(plan, sides).await?;
    let measure = async |side: &Side| {
        let connections = side.wire.callers(side.server.port, callers, shared).await?;
        let works = connections
            .into_iter()
            .map(|connection| Box::new(Empty(connection)) as Box<dyn Work>);
        closed::run(works.collect(), Some(plan.timing), &side.server).await
    };
    let outcomes = in_turn(plan.runs, &sides, measure).await?;
    report.note_empty((section.name, callers, shared), &outcomes);
    report.row(&name, &outcomes, None);
    Ok(())
}

/// How the names of rows end whose callers have one connection together.
fn on_one(shared: bool) -> &'static str {
    if shared { ", on one connection" } else { "" }
}

async fn appends(
    plan: &Plan,
    report: &mut Report,
    section: &Section,
    appends: Appends,
) -> anyhow::Result<()> {
    let Appends {
        callers, events, ..
    } = appends;
    let guarded = match appends.guard {
        Guard::None => "no condition",
        Guard::OwnTag | Guard::Kind(..) => "condition on the own tag",
    };
    let name = format!(
        "{}: {} x {events}, {guarded}{}",
        section.name,
        counted(callers, "writer"),
        on_one(appends.shared)
    );
    if !plan.wants(&name) {
        return Ok(());
    }
    let sides = if appends.shared {
        &section.shared
    } else {
        &section.sides
    };
    let sides = start(plan, sides).await?;
    let outcomes = in_turn(plan.runs, &sides, async |side| {
        measure(plan, side, appends).await
    });
    report.row(
        &name,
        &outcomes.await?,
        (events == 1).then_some((section.name, callers, appends.shared)),
    );
    Ok(())
}

async fn measure(plan: &Plan, side: &Side, appends: Appends) -> anyhow::Result<Outcome> {
    let Appends {
        callers, shared, ..
    } = appends;
    let run = plan.next_run();
    let connections = side.wire.callers(side.server.port, callers, shared).await?;
    let works = connections
        .into_iter()
        .enumerate()
        .map(|(caller, connection)| {
            Box::new(Appending {
                connection,
                name: format!("run-{run}-{caller}"),
                events: appends.events,
                guard: appends.guard,
                count: 0,
                last: None,
            }) as Box<dyn Work>
        });
    closed::run(works.collect(), Some(plan.timing), &side.server).await
}
