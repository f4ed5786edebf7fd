-- The log: events in the order of their commits, and what finds them.
-- `:schema` stands for the quoted name of the schema, here and in the other files.

-- Returns whether a text is the escaped form of a name: not empty, not too long, and each U+0001 the start of an escape.
-- Not strict: a strict function around a `case` is called for each row instead of becoming a part of the statement.
create function :schema.is_name(name text, bytes_max int) returns boolean
    language sql immutable parallel safe
    as $body$
        select case when strpos(name, e'\x01') = 0 then octet_length(name) between 1 and bytes_max
               else octet_length(replace(name, e'\x01', '')) <= bytes_max
                    and strpos(replace(replace(name, e'\x01\x01', ''), e'\x01\x02', ''), e'\x01') = 0 end
    $body$;

create table :schema.events (
    position bigint not null,
    revision bigint not null,
    id uuid not null,
    time timestamptz not null,
    -- 0: the event was erased. 1: JSON. 2: bytes. 3: MessagePack. 4: CBOR.
    content_type smallint not null,
    stream text collate "C" not null,
    type text collate "C" not null,
    data bytea not null,
    metadata bytea,
    tags text[] collate "C",
    -- What a program can read. Roles that append may call the append function with anything.
    check (position > 0 and revision >= 0),
    check (content_type between 0 and 4),
    check (:schema.is_name(stream, 1024) and :schema.is_name(type, 255)),
    check (cardinality(tags) <= 64 and array_ndims(tags) = 1),
    check (id <> '00000000-0000-0000-0000-000000000000'),
    check (octet_length(data) <= 16777216 and octet_length(metadata) <= 1048576),
    check (time >= '1970-01-01 00:00:00+00' and time < 'infinity')
);

-- Exists to be locked by appends. Only the functions of the owner can lock it in a mode that excludes others.
create table :schema.append_lock ();

-- One row per tag and event. The key is the order in which an append condition searches: one tag, beyond one position.
create table :schema.event_tags (
    tag text collate "C" not null check (:schema.is_name(tag, 255)),
    position bigint not null,
    primary key (tag, position)
);

-- A stream's name up to its first dash, unless nothing stands before that.
-- Not strict either.
create function :schema.category(stream text) returns text
    language sql immutable parallel safe
    as $body$
        select case when strpos(stream, '-') > 1 then left(stream, strpos(stream, '-') - 1) else stream end
    $body$;

alter table :schema.events add primary key (position);
create unique index events_by_stream on :schema.events (stream, revision);
create unique index events_by_id on :schema.events (id);
create index events_by_type on :schema.events (type, position);
create index events_by_category on :schema.events (:schema.category(stream), position);

-- Refuses changes to the log. The function `erase` marks its own transaction, and may delete and empty events in it.
create function :schema.refuse_change() returns trigger language plpgsql as $body$
begin
    if current_setting('leftfold.erasing', true) = pg_current_xact_id()::text and tg_op <> 'TRUNCATE'
        and tg_table_name not in ('erased', 'erased_tags') then
        return null;
    end if;
    raise exception 'events of % never change: % refused', tg_table_schema, lower(tg_op)
        using errcode = 'LF001', hint = 'append an event that corrects the earlier one';
end
$body$;

create trigger events_never_change before update or delete or truncate on :schema.events
    for each statement execute function :schema.refuse_change();
create trigger tags_never_change before update or delete or truncate on :schema.event_tags
    for each statement execute function :schema.refuse_change();

-- Returns the positions of the first events that match one item of a query, in the requested order.
--
-- An event matches if it has all of `of_tags`, one of `of_types`, and the category; null demands nothing. Each demand has an
-- index ordered by position. The rarest demand within the range drives the search, and the others are looked up for each of
-- its positions, so the cost grows with the rarest. Positions are counted up to a budget. If every demand reaches the
-- budget, as many positions of the first one are searched, and the budget doubles.
-- For events, comparing rows and ordering by both columns leaves the planner one index, whatever its statistics say. Tags have
-- one index only. There the columns are compared one by one, because a scan does not end at the second column of a row.
create function :schema.find(
    of_tags text[], of_types text[], of_category text, lower bigint, upper bigint, descending boolean,
    with_emptied boolean, count_max int
) returns bigint[] language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set enable_bitmapscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
    set enable_sort = off
as $body$
declare
    tag_count constant int := coalesce(cardinality(of_tags), 0);
    demands constant int := tag_count + (of_types is not null)::int + (of_category is not null)::int;
    on_rows constant boolean := of_types is not null or of_category is not null;
    budget int := greatest(least(count_max, 4096), 16);
    found bigint[] := '{}';
    candidates bigint[];
    driver int;
    fewest int;
    n int;
begin
    loop
        driver := 1;
        fewest := budget;
        for demand in 1 .. demands loop
            exit when demands = 1;
            if demand <= tag_count then
                select count(*) into n from (
                    select from :schema.event_tags g
                    where g.tag = of_tags[demand] and g.position between lower and upper
                    order by g.position limit budget) c;
            elsif demand = tag_count + 1 and of_types is not null then
                select count(*) into n from (
                    select from unnest(of_types) t(type), lateral (
                        select from :schema.events e
                        where (e.type, e.position) >= (t.type, lower) and (e.type, e.position) <= (t.type, upper)
                        order by e.type, e.position limit budget) o limit budget) c;
            else
                select count(*) into n from (
                    select from :schema.events e
                    where (:schema.category(e.stream), e.position) >= (of_category, lower)
                      and (:schema.category(e.stream), e.position) <= (of_category, upper)
                    order by :schema.category(e.stream), e.position limit budget) c;
            end if;
            if n < fewest then
                driver := demand;
                fewest := n;
            end if;
            if n = 0 then
                return found;
            end if;
        end loop;

        if driver <= tag_count and not descending then
            candidates := array(
                select g.position from :schema.event_tags g
                where g.tag = of_tags[driver] and g.position between lower and upper
                order by g.position limit budget);
        elsif driver <= tag_count then
            candidates := array(
                select g.position from :schema.event_tags g
                where g.tag = of_tags[driver] and g.position between lower and upper
                order by g.position desc limit budget);
        elsif driver = tag_count + 1 and of_types is not null and not descending then
            candidates := array(
                select o.position from unnest(of_types) t(type), lateral (
                    select e.position from :schema.events e
                    where (e.type, e.position) >= (t.type, lower) and (e.type, e.position) <= (t.type, upper)
                    order by e.type, e.position limit budget) o order by o.position limit budget);
        elsif driver = tag_count + 1 and of_types is not null then
            candidates := array(
                select o.position from unnest(of_types) t(type), lateral (
                    select e.position from :schema.events e
                    where (e.type, e.position) >= (t.type, lower) and (e.type, e.position) <= (t.type, upper)
                    order by e.type desc, e.position desc limit budget) o order by o.position desc limit budget);
        elsif not descending then
            candidates := array(
                select e.position from :schema.events e
                where (:schema.category(e.stream), e.position) >= (of_category, lower)
                  and (:schema.category(e.stream), e.position) <= (of_category, upper)
                order by :schema.category(e.stream), e.position limit budget);
        else
            candidates := array(
                select e.position from :schema.events e
                where (:schema.category(e.stream), e.position) >= (of_category, lower)
                  and (:schema.category(e.stream), e.position) <= (of_category, upper)
                order by :schema.category(e.stream) desc, e.position desc limit budget);
        end if;

        if demands = 1 and tag_count = 1 then
            found := found || candidates;
        else
            found := found || array(
                select c.position from unnest(candidates) with ordinality c(position, n)
                where not exists (
                        select from unnest(of_tags) o(tag) where not exists (
                            select from :schema.event_tags x where x.tag = o.tag and x.position = c.position))
                  and (not on_rows or exists (
                        select from :schema.events e
                        where e.position = c.position and (of_types is null or e.type = any (of_types))
                          and (of_category is null or :schema.category(e.stream) = of_category)
                          and (with_emptied or e.content_type > 0)))
                order by c.n);
        end if;
        if cardinality(found) >= count_max then
            return found[1:count_max];
        end if;
        if cardinality(candidates) < budget then
            return found;
        end if;
        if descending then
            upper := candidates[budget] - 1;
        else
            lower := candidates[budget] + 1;
        end if;
        budget := least(budget * 2, 65536);
    end loop;
end
$body$;
