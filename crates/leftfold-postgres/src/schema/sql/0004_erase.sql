-- Giving back the space of events that nobody is to see any more.
-- An erased event keeps its place: a row in `erased`, or, while it is the newest of its stream, its own row, emptied, since
-- the end of the log and the ends of streams are read from there. Its type and its tags stay where conditions look, and reads
-- do not: a condition matches an event whether it was erased since or not.

create table :schema.erased (
    id uuid primary key,
    position bigint not null,
    revision bigint not null,
    stream text collate "C" not null,
    type text collate "C" not null
);
create index erased_by_type on :schema.erased (type, position);

create table :schema.erased_tags (
    tag text collate "C" not null,
    position bigint not null,
    primary key (tag, position)
);

create or replace function :schema.refuse_change() returns trigger language plpgsql as $body$
begin
    -- Said by the function below, for its own transaction alone.
    if current_setting('leftfold.erasing', true) = pg_current_xact_id()::text and tg_op <> 'TRUNCATE'
        and tg_table_name not in ('erased', 'erased_tags') then
        return null;
    end if;
    raise exception 'events of % never change: % refused', tg_table_schema, lower(tg_op)
        using errcode = 'LF001', hint = 'append an event that corrects the earlier one';
end
$body$;

create trigger places_never_change before update or delete or truncate on :schema.erased
    for each statement execute function :schema.refuse_change();
create trigger tags_never_change before update or delete or truncate on :schema.erased_tags
    for each statement execute function :schema.refuse_change();

-- Erases events of some streams, each from one revision to before another: at most so many, and not many more bytes.
-- Begins with the first stream; answers in which one it ended, and before which revision. `stream_number` beyond the last:
-- all is done. Holds the lock of appends, so that an append finds each id and each place either here or there.
create function :schema.erase(
    of_streams text[], froms bigint[], befores bigint[], events_max int, bytes_max bigint, durable boolean,
    out stream_number int, out from_revision bigint, out events bigint, out bytes bigint
) language plpgsql security definer
    set search_path = pg_catalog
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
        raise exception 'erasing needs the isolation level read committed, this transaction has %',
            current_setting('transaction_isolation') using errcode = 'LF002';
    end if;
    if durable and (current_setting('synchronous_commit') = 'off' or current_setting('fsync') = 'off') then
        raise exception 'this server may lose what it has committed: fsync is %, synchronous_commit is %',
            current_setting('fsync'), current_setting('synchronous_commit') using errcode = 'LF003';
    end if;
    perform pg_advisory_xact_lock(1279677014, ':schema.events'::regclass::oid::int);

    events := 0;
    bytes := 0;
    stream_number := 1;
    while stream_number <= cardinality(of_streams) loop
        select e.revision into last from :schema.events e
            where e.stream = of_streams[stream_number] order by e.revision desc limit 1;
        select count(*), max(b.revision), count(*) filter (where b.content > 0), coalesce(sum(b.size), 0),
               array_agg(b.position) filter (where b.revision < last), max(b.position) filter (where b.revision = last)
            into found, reached, found_events, found_bytes, found_gone, found_newest
            from (
                select f.position, f.revision, f.content, f.size,
                       sum(f.size) over (order by f.revision) - f.size as size_before
                from (
                    select e.position, e.revision, e.content,
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
    update :schema.events e set content = 0, data = '', metadata = null, tags = null
        from unnest(emptied) p(position) where e.position = p.position and e.content > 0;
    perform set_config('leftfold.erasing', '', true);
end
$body$;

create or replace view :schema.readable as
    select e.position, e.stream, e.revision, e.type, :schema.as_json(e.data) as data,
           :schema.as_json(e.metadata) as metadata, e.tags, e.id, e.time
    from :schema.events e where e.content > 0;

-- Rights for a role that appends and reads, and can neither change nor remove an event.
create or replace function :schema.grant_append(role name) returns void language plpgsql as $body$
begin
    perform :schema.grant_read(role);
    execute format('grant execute on all functions in schema %s to %I', ':schema', role);
    execute format('revoke execute on function %s.grant_append(name), %s.grant_read(name), %s.grant_scavenge(name),
                    %s.erase(text[], bigint[], bigint[], int, bigint, boolean) from %I',
                   ':schema', ':schema', ':schema', ':schema', role);
    execute format('grant insert, update, delete on %s.snapshots, %s.checkpoints, %s.leases, %s.parked to %I',
                   ':schema', ':schema', ':schema', ':schema', role);
end
$body$;

-- Rights for a role that reads and gives back space.
create function :schema.grant_scavenge(role name) returns void language plpgsql as $body$
begin
    perform :schema.grant_read(role);
    execute format('grant execute on function %s.erase(text[], bigint[], bigint[], int, bigint, boolean) to %I',
                   ':schema', role);
end
$body$;

-- Who could read the log before can read all of it.
do $body$
declare
    reader oid;
begin
    for reader in
        select distinct a.grantee from pg_class c, aclexplode(c.relacl) a
        where c.oid = ':schema.events'::regclass and a.privilege_type = 'SELECT' and a.grantee <> c.relowner
    loop
        execute format('grant select on :schema.erased, :schema.erased_tags to %s',
                       case reader when 0 then 'public' else reader::regrole::text end);
    end loop;
end
$body$;

revoke execute on all functions in schema :schema from public;
