//! Finding events by tag: a narrow table of tags beside a GIN index on the events.
//!
//! **Owns:** that comparison, which decides the schema. **Does not know:** the store's SQL.
//! **Invariants:** both sides hold the same events; each insert writes 100 events of 3 tags in a transaction of its own.

use std::fs;

use leftfold_postgres::testing::Server;

use crate::{Arguments, Row};

const TABLES: &str = "
    create table by_gin (position bigint primary key, data text not null, tags text[] not null);
    create index on by_gin using gin (tags);
    create table by_table (position bigint primary key, data text not null, tags text[] not null);
    create table tag_rows (tag text collate \"C\" not null, position bigint not null, primary key (tag, position));
    create sequence gin_numbers; create sequence table_numbers;
    create function fill(kind text) returns void language plpgsql as $body$
    declare
        base bigint := nextval(kind || '_numbers') * 100;
    begin
        if kind = 'gin' then
            insert into by_gin select base + n, repeat('x', 110),
                array['kind:' || n % 3, 'user:' || (base + n) * 7919 % 100000, 'shop:' || (base + n) % 500]
                from generate_series(0, 99) n;
        else
            with written as (insert into by_table select base + n, repeat('x', 110),
                array['kind:' || n % 3, 'user:' || (base + n) * 7919 % 100000, 'shop:' || (base + n) % 500]
                from generate_series(0, 99) n returning position, tags)
            insert into tag_rows select t, position from written, unnest(tags) t;
        end if;
    end $body$;
    select count(fill('gin')) from generate_series(1, :rounds);
    select count(fill('table')) from generate_series(1, :rounds);
    analyze;";

const QUESTIONS: [(&str, &str, &str); 2] = [
    (
        "condition near the head",
        "select min(position) from by_gin where tags @> array['shop:' || :shop] and position > :near",
        "select position from tag_rows where tag = 'shop:' || :shop and position > :near order by position limit 1",
    ),
    (
        "two tags, first event",
        "select position from by_gin where tags @> array['shop:' || :shop, 'kind:1'] order by position limit 1",
        "select a.position from tag_rows a join tag_rows b on a.position = b.position \
         where a.tag = 'shop:' || :shop and b.tag = 'kind:1' order by a.position limit 1",
    ),
];

/// Inserts, or questions, on both sides. The store's way stands first.
pub(crate) async fn rows(
    server: &Server,
    arguments: &Arguments,
    questions: bool,
    wants: &impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let tasks: Vec<(&str, &str, &str)> = if questions {
        QUESTIONS.to_vec()
    } else {
        vec![(
            "100 events of 3 tags",
            "select fill('gin')",
            "select fill('table')",
        )]
    };
    let tasks: Vec<_> = tasks
        .into_iter()
        .filter(|(name, ..)| wants(&format!("tags: {name}")))
        .collect();
    if tasks.is_empty() {
        return Ok(());
    }
    let address = server.database();
    let database = address.rsplit('/').next().unwrap_or_default();
    // Half as many events as the catch-up reads, 100 at a time.
    let rounds = (arguments.events / 200).max(1);
    server.psql(database, &TABLES.replace(":rounds", &rounds.to_string()));
    for (name, gin, table) in tasks {
        let mut row = Row::default();
        for _ in 0..arguments.runs {
            row.leftfold
                .push(pgbench(server, database, table, rounds, arguments)?);
            row.peer
                .push(pgbench(server, database, gin, rounds, arguments)?);
        }
        row.show(&format!("tags: {name}, by table"), "by GIN index");
    }
    Ok(())
}

fn pgbench(
    server: &Server,
    database: &str,
    sql: &str,
    rounds: u64,
    arguments: &Arguments,
) -> anyhow::Result<f64> {
    let sql = sql.replace(":near", &(rounds * 100 + 50).to_string());
    let script = server.directory().join("tag-index.sql");
    fs::write(&script, format!("\\set shop random(0, 499)\n{sql};\n"))?;
    let host = server.directory().to_string_lossy().into_owned();
    let seconds = (arguments.seconds.ceil() as u64).max(1).to_string();
    let script = script.to_string_lossy().into_owned();
    let output = server.run(
        "pgbench",
        &[
            "-n", "-h", &host, "-U", "leftfold", "-c", "1", "-T", &seconds, "-f", &script, database,
        ],
    );
    let rate = output.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = rate.ok_or_else(|| anyhow::anyhow!("pgbench tells no rate"))?;
    Ok(rate.split(' ').next().unwrap_or_default().parse()?)
}
