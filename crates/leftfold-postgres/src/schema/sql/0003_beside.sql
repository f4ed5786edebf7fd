-- What is kept beside the log: snapshots, checkpoints, leases, parked events; and views for people.

create table :schema.snapshots (
    stream text collate "C" primary key,
    revision bigint not null,
    position bigint not null,
    last_event uuid not null,
    fingerprint bytea not null,
    state bytea not null,
    saved_at timestamptz not null default clock_timestamp()
);

create table :schema.checkpoints (
    consumer text collate "C" primary key,
    position bigint not null,
    saved_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

create table :schema.leases (
    name text collate "C" primary key,
    holder text not null,
    term bigint not null,
    until timestamptz not null
) with (fillfactor = 50);

create table :schema.parked (
    consumer text collate "C" not null,
    position bigint not null,
    key text not null,
    reason text not null,
    attempts int not null,
    parked_at timestamptz not null default clock_timestamp(),
    primary key (consumer, position)
);
create index parked_by_key on :schema.parked (consumer, key, position);

-- The last event of each stream, found by stepping through the index by streams.
create view :schema.streams as
    with recursive names(stream) as (
        (select e.stream from :schema.events e order by e.stream limit 1)
        union all
        select (select e.stream from :schema.events e where e.stream > n.stream order by e.stream limit 1)
        from names n where n.stream is not null
    )
    select n.stream, l.revision + 1 as events, l.revision, l.position, l.time
    from names n, lateral (
        select e.revision, e.position, e.time from :schema.events e
        where e.stream = n.stream order by e.revision desc limit 1
    ) l;

-- Data as jsonb if it is JSON that jsonb can hold, else null. The bytes themselves stay as they were appended.
create function :schema.as_json(data bytea) returns jsonb
    language plpgsql immutable strict parallel safe as $body$
begin
    return convert_from(data, 'UTF8')::jsonb;
exception when others then
    return null;
end
$body$;

create view :schema.readable as
    select e.position, e.stream, e.revision, e.type, :schema.as_json(e.data) as data,
           :schema.as_json(e.metadata) as metadata, e.tags, e.id, e.time
    from :schema.events e;

-- Rights for a role that appends and reads, and can neither change nor remove an event.
create function :schema.grant_append(role name) returns void language plpgsql as $body$
begin
    perform :schema.grant_read(role);
    execute format('grant execute on all functions in schema %s to %I', ':schema', role);
    execute format('revoke execute on function %s.grant_append(name), %s.grant_read(name) from %I',
                   ':schema', ':schema', role);
    execute format('grant insert, update, delete on %s.snapshots, %s.checkpoints, %s.leases, %s.parked to %I',
                   ':schema', ':schema', ':schema', ':schema', role);
end
$body$;

-- Rights for a role that only reads.
create function :schema.grant_read(role name) returns void language plpgsql as $body$
begin
    execute format('grant usage on schema %s to %I', ':schema', role);
    execute format('grant select on all tables in schema %s to %I', ':schema', role);
    execute format('grant execute on function %s.category(text), %s.as_json(bytea) to %I', ':schema', ':schema', role);
end
$body$;

revoke execute on all functions in schema :schema from public;
