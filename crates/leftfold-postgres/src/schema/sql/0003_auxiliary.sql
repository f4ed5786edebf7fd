-- Snapshots, checkpoints, leases and parked events, and views for people.

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
    expires_at timestamptz not null
) with (fillfactor = 50);

create table :schema.parked_events (
    consumer text collate "C" not null,
    position bigint not null,
    key text not null,
    reason text not null,
    attempts int not null,
    parked_at timestamptz not null default clock_timestamp(),
    primary key (consumer, position)
);
create index parked_events_by_key on :schema.parked_events (consumer, key, position);

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

-- Returns data as jsonb if jsonb can hold it, else null.
create function :schema.as_json(data bytea) returns jsonb
    language plpgsql immutable strict parallel safe as $body$
begin
    return convert_from(data, 'UTF8')::jsonb;
exception when others then
    return null;
end
$body$;

create view :schema.events_json as
    select e.position, e.stream, e.revision, e.type, :schema.as_json(e.data) as data,
           :schema.as_json(e.metadata) as metadata, e.tags, e.id, e.time
    from :schema.events e where e.content_type > 0;
