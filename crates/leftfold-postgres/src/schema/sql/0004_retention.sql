-- Reclaims the space of events that no stream read delivers any more.
-- An erased event keeps its position: as a row of `erased` or, while it is the newest of its stream, as its own row, emptied.
-- The head of the log and the heads of streams are read from that row.
-- Append conditions search the types and tags of erased events; reads do not.

create table :schema.erased (
    id uuid primary key,
    position bigint not null,
    revision bigint not null,
    stream text collate "C" not null,
    type text collate "C" not null
);
create index erased_by_type on :schema.erased (type, position);
create unique index erased_by_position on :schema.erased (position);

create table :schema.erased_tags (
    tag text collate "C" not null,
    position bigint not null,
    primary key (tag, position)
);

create index erased_tags_by_position on :schema.erased_tags (position);

create trigger erased_never_change before update or delete or truncate on :schema.erased
    for each statement execute function :schema.refuse_change();
create trigger erased_tags_never_change before update or delete or truncate on :schema.erased_tags
    for each statement execute function :schema.refuse_change();

-- Erases events of some streams, each from one revision to before another: at most `events_max`, and about `bytes_max`.
-- Returns the number of the stream it ended in, and the revision to go on from. All is done when `stream_number` is beyond
-- the last. Holds the lock of appends, so that an append finds each id in exactly one of the tables.
create function :schema.erase(
    of_streams text[], froms bigint[], befores bigint[], events_max int, bytes_max bigint, durable boolean,
    out stream_number int, out from_revision bigint, out events bigint, out bytes bigint
) language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set plan_cache_mode = force_generic_plan
as $body$
declare
    gone bigint[] := '{}';
    emptied bigint[] := '{}';
    taken int := 0;
    last bigint;
    reached bigint;
    found int;
    found_gone bigint[];
    found_newest bigint;
    found_events bigint;
    found_bytes bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'isolation level of the transaction is %; erase expects read committed',
            current_setting('transaction_isolation') using errcode = 'LF002';
    end if;
    if durable and (current_setting('synchronous_commit') = 'off' or current_setting('fsync') = 'off') then
        raise exception 'server may lose committed events: fsync is %, synchronous_commit is %; expected on',
            current_setting('fsync'), current_setting('synchronous_commit') using errcode = 'LF003';
    end if;
    lock table :schema.append_lock in exclusive mode;

    events := 0;
    bytes := 0;
    stream_number := 1;
    while stream_number <= cardinality(of_streams) loop
        select e.revision into last from :schema.events e
            where e.stream = of_streams[stream_number] order by e.revision desc limit 1;
        select count(*), max(b.revision), count(*) filter (where b.content_type > 0), coalesce(sum(b.size), 0),
               array_agg(b.position) filter (where b.revision < last), max(b.position) filter (where b.revision = last)
            into found, reached, found_events, found_bytes, found_gone, found_newest
            from (
                select f.position, f.revision, f.content_type, f.size,
                       sum(f.size) over (order by f.revision) - f.size as size_before
                from (
                    select e.position, e.revision, e.content_type,
                           octet_length(e.data) + coalesce(octet_length(e.metadata), 0) as size
                    from :schema.events e
                    where e.stream = of_streams[stream_number] and e.revision >= froms[stream_number]
                      and e.revision < befores[stream_number]
                    order by e.revision limit events_max - taken) f) b
            where b.size_before < bytes_max - bytes;
        taken := taken + found;
        events := events + found_events;
        bytes := bytes + found_bytes;
        gone := gone || found_gone;
        if found_newest is not null then
            emptied := emptied || found_newest;
        end if;
        if taken >= events_max or bytes >= bytes_max then
            from_revision := reached + 1;
            exit;
        end if;
        stream_number := stream_number + 1;
    end loop;
    if taken = 0 then
        return;
    end if;

    perform set_config('leftfold.erasing', pg_current_xact_id()::text, true);
    insert into :schema.erased (id, position, revision, stream, type)
        select e.id, e.position, e.revision, e.stream, e.type
        from unnest(gone) g(position) join :schema.events e on e.position = g.position;
    with moved as (
        delete from :schema.event_tags g
            using unnest(gone || emptied) p(position), :schema.events e, unnest(e.tags) t(tag)
            where e.position = p.position and g.tag = t.tag and g.position = p.position
            returning g.tag, g.position)
    insert into :schema.erased_tags (tag, position) select m.tag, m.position from moved m;
    delete from :schema.events e using unnest(gone) g(position) where e.position = g.position;
    update :schema.events e set content_type = 0, data = '', metadata = null, tags = null
        from unnest(emptied) p(position) where e.position = p.position and e.content_type > 0;
    perform set_config('leftfold.erasing', '', true);
end
$body$;
