-- Consumers: checkpoints, claims, parked events and timers, which the functions below change and nothing else.
-- Each change locks the row of its consumer first, so the changes of one consumer happen one after the other.

create table :schema.consumers (
    name text collate "C" primary key,
    position bigint not null,
    -- Rises with each new holder, each reset and each removal. The row of a removed consumer stays, so it never falls.
    term bigint not null,
    moved_at timestamptz not null,
    holder text,
    held_until timestamptz,
    parked_events bigint not null default 0,
    timers bigint not null default 0,
    removed boolean not null default false,
    check (octet_length(name) between 1 and 255 and name !~ '[\u0001-\u001f\u007f-\u009f]'),
    check (position >= 0 and term >= 0 and parked_events >= 0 and timers >= 0),
    check (octet_length(holder) between 1 and 510 and (holder is null) = (held_until is null))
) with (fillfactor = 50);

-- Takes over what was stored by name only. A name that no consumer can have is left out.
insert into :schema.consumers (name, position, term, moved_at, parked_events)
    select n.name, coalesce(c.position, 0), coalesce(l.term, 0), coalesce(c.saved_at, clock_timestamp()),
           (select count(*) from :schema.parked_events p where p.consumer = n.name)
    from (select consumer from :schema.checkpoints union select consumer from :schema.parked_events) n(name)
        left join :schema.checkpoints c on c.consumer = n.name
        left join :schema.leases l on l.name = n.name
    where octet_length(n.name) between 1 and 255 and n.name !~ '[\u0001-\u001f\u007f-\u009f]';
delete from :schema.parked_events p where not exists (select from :schema.consumers c where c.name = p.consumer);
drop table :schema.checkpoints, :schema.leases;

alter table :schema.parked_events
    alter column attempts type bigint,
    -- What an operator wants done with it. 1: handle it again. 2: pass over it.
    add column resolution smallint check (resolution in (1, 2));
create index parked_events_resolved on :schema.parked_events (consumer, position) where resolution is not null;

create table :schema.timers (
    consumer text collate "C" not null,
    id text collate "C" not null,
    due timestamptz not null,
    data bytea not null,
    primary key (consumer, id)
);
create index timers_by_due on :schema.timers (consumer, due, id);

-- Claims a consumer for a holder, and returns term and checkpoint; or who holds it, and for how long.
create function :schema.claim_consumer(
    of_name text, of_holder text, ttl_micros bigint, start_position bigint,
    out claim_term bigint, out checkpoint bigint, out held_by text, out remaining_micros bigint
) language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $body$
declare
    known :schema.consumers;
    moment timestamptz;
begin
    insert into :schema.consumers (name, position, term, moved_at)
        values (of_name, start_position, 0, clock_timestamp()) on conflict (name) do nothing;
    select c.* into known from :schema.consumers c where c.name = of_name for update;
    moment := clock_timestamp();
    if known.held_until > moment and known.holder <> of_holder then
        held_by := known.holder;
        remaining_micros := extract(epoch from known.held_until - moment) * 1000000;
        return;
    end if;
    claim_term := known.term + case when known.held_until > moment then 0 else 1 end;
    checkpoint := case when known.removed then start_position else known.position end;
    update :schema.consumers c
        set position = checkpoint, term = claim_term, removed = false, holder = of_holder,
            held_until = moment + least(greatest(ttl_micros, 0), 86400000000) * interval '1 microsecond',
            moved_at = case when known.removed then moment else c.moved_at end
        where c.name = of_name;
end
$body$;

-- Prolongs the claim of a term. Returns the newest term, which is another one if the claim is lost.
create function :schema.renew_claim(of_name text, of_term bigint, of_holder text, ttl_micros bigint) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $body$
begin
    update :schema.consumers c
        set holder = of_holder,
            held_until = clock_timestamp() + least(greatest(ttl_micros, 0), 86400000000) * interval '1 microsecond'
        where c.name = of_name and c.term = of_term;
    if found then
        return of_term;
    end if;
    return coalesce((select c.term from :schema.consumers c where c.name = of_name), 0);
end
$body$;

-- Ends the claim of a term, if it is the newest.
create function :schema.release_claim(of_name text, of_term bigint) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $body$
begin
    update :schema.consumers c set holder = null, held_until = null where c.name = of_name and c.term = of_term;
end
$body$;

-- Moves a checkpoint from exactly one position to another and makes the changes that go with it, under the newest term only.
-- Returns the newest term, the checkpoint as it was, and whether too many events would be parked. Changes nothing if the
-- term or the checkpoint is another one than the caller says, or if too many would be parked.
create function :schema.advance_consumer(
    of_name text, of_term bigint, from_position bigint, to_position bigint, parked_max bigint,
    park_positions bigint[], park_keys text[], park_reasons text[], park_attempts bigint[], park_times timestamptz[],
    unpark_positions bigint[], timer_ids text[], timer_dues timestamptz[], timer_data bytea[], cancel_ids text[],
    out newest_term bigint, out checkpoint bigint, out is_full boolean
) language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $body$
declare
    known :schema.consumers;
    touched constant bigint[] := park_positions || unpark_positions;
    set_again constant text[] := timer_ids || cancel_ids;
    parked_before bigint := 0;
    timers_before bigint := 0;
begin
    select c.* into known from :schema.consumers c where c.name = of_name for update;
    newest_term := coalesce(known.term, 0);
    checkpoint := known.position;
    is_full := false;
    if known.term is distinct from of_term or checkpoint <> from_position or to_position < from_position then
        return;
    end if;
    if cardinality(touched) > 0 then
        select count(*) into parked_before from :schema.parked_events p
            where p.consumer = of_name and p.position = any (touched);
        is_full := known.parked_events - parked_before + cardinality(park_positions) > parked_max;
        if is_full then
            return;
        end if;
        delete from :schema.parked_events p where p.consumer = of_name and p.position = any (touched);
        insert into :schema.parked_events (consumer, position, key, reason, attempts, parked_at)
            select of_name, x.position, x.key, x.reason, x.attempts, x.parked_at
            from unnest(park_positions, park_keys, park_reasons, park_attempts, park_times)
                 x(position, key, reason, attempts, parked_at);
    end if;
    if cardinality(set_again) > 0 then
        delete from :schema.timers t where t.consumer = of_name and t.id = any (set_again);
        get diagnostics timers_before = row_count;
        insert into :schema.timers (consumer, id, due, data)
            select of_name, x.id, x.due, x.data from unnest(timer_ids, timer_dues, timer_data) x(id, due, data);
    end if;
    update :schema.consumers c
        set position = to_position, moved_at = clock_timestamp(),
            parked_events = c.parked_events - parked_before + cardinality(park_positions),
            timers = c.timers - timers_before + cardinality(timer_ids)
        where c.name = of_name;
end
$body$;

-- Writes down what an operator wants done with a parked event. Returns 0, or 1 if the consumer is not known, or 2 if the
-- event is not parked.
create function :schema.resolve_parked_event(of_name text, of_position bigint, wanted smallint) returns int
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $body$
begin
    perform from :schema.consumers c where c.name = of_name and not c.removed for update;
    if not found then
        return 1;
    end if;
    update :schema.parked_events p set resolution = wanted where p.consumer = of_name and p.position = of_position;
    return case when found then 0 else 2 end;
end
$body$;

-- Puts a checkpoint elsewhere, ends the claim, and forgets what is parked behind the checkpoint. Returns whether the
-- consumer is known.
create function :schema.reset_consumer(of_name text, to_position bigint) returns boolean
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $body$
declare
    gone bigint;
begin
    perform from :schema.consumers c where c.name = of_name and not c.removed for update;
    if not found then
        return false;
    end if;
    delete from :schema.parked_events p where p.consumer = of_name and p.position > to_position;
    get diagnostics gone = row_count;
    update :schema.consumers c
        set position = to_position, term = c.term + 1, moved_at = clock_timestamp(), holder = null, held_until = null,
            parked_events = c.parked_events - gone
        where c.name = of_name;
    return true;
end
$body$;

-- Forgets a consumer; or returns who holds it, and for how long.
create function :schema.remove_consumer(of_name text, out held_by text, out remaining_micros bigint)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $body$
declare
    known :schema.consumers;
    moment timestamptz;
begin
    select c.* into known from :schema.consumers c where c.name = of_name and not c.removed for update;
    moment := clock_timestamp();
    if known.held_until > moment then
        held_by := known.holder;
        remaining_micros := extract(epoch from known.held_until - moment) * 1000000;
        return;
    end if;
    delete from :schema.parked_events p where p.consumer = of_name;
    delete from :schema.timers t where t.consumer = of_name;
    update :schema.consumers c
        set removed = true, term = c.term + 1, parked_events = 0, timers = 0, holder = null, held_until = null
        where c.name = of_name and not c.removed;
end
$body$;

create or replace function :schema.grant_read(role name) returns void language plpgsql as $body$
begin
    execute format('grant usage on schema %s to %I', ':schema', role);
    execute format('grant select on %1$s.events, %1$s.event_tags, %1$s.erased, %1$s.erased_tags, %1$s.migrations,
                    %1$s.snapshots, %1$s.consumers, %1$s.parked_events, %1$s.timers, %1$s.streams, %1$s.events_json
                    to %2$I', ':schema', role);
    execute format('grant execute on function %1$s.category(text), %1$s.as_json(bytea), %1$s.is_name(text, int),
                    %1$s.find(text[], text[], text, bigint, bigint, boolean, boolean, int) to %2$I', ':schema', role);
end
$body$;

-- Grants a role what reading and acting as a consumer needs. It changes consumers by the functions only.
create or replace function :schema.grant_consume(role name) returns void language plpgsql as $body$
declare
    granted record;
begin
    perform :schema.grant_read(role);
    for granted in
        select p.oid::regprocedure as function from pg_catalog.pg_proc p
        where p.pronamespace = ':schema'::regnamespace
          and p.proname in ('claim_consumer', 'renew_claim', 'release_claim', 'advance_consumer', 'resolve_parked_event',
                            'reset_consumer', 'remove_consumer')
    loop
        execute format('grant execute on function %s to %I', granted.function, role);
    end loop;
end
$body$;

revoke execute on function
    :schema.claim_consumer(text, text, bigint, bigint), :schema.renew_claim(text, bigint, text, bigint),
    :schema.release_claim(text, bigint),
    :schema.advance_consumer(text, bigint, bigint, bigint, bigint, bigint[], text[], text[], bigint[], timestamptz[],
                             bigint[], text[], timestamptz[], bytea[], text[]),
    :schema.resolve_parked_event(text, bigint, smallint), :schema.reset_consumer(text, bigint),
    :schema.remove_consumer(text)
    from public;
