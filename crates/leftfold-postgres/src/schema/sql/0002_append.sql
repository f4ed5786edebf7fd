-- Returns the first position that matches one item of an append condition, erased events included; null if there is none.
--
-- An erased event matches as it did before. Its tags are all in one of the two tables; its type is where its position is.
-- Live events are searched first: an event that is erased meanwhile is found in one of the two searches.
create function :schema.find_first(of_tags text[], of_types text[], lower bigint, upper bigint) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set plan_cache_mode = force_generic_plan
as $body$
declare
    found bigint := (:schema.find(of_tags, of_types, null, lower, upper, false, true, 1))[1];
    rarest text;
    fewest int;
    n int;
    gone bigint;
begin
    if not exists (select from :schema.erased) and not exists (select from :schema.erased_tags) then
        return found;
    end if;
    if of_tags is null then
        select min(o.position) into gone from unnest(of_types) t(type), lateral (
            select e.position from :schema.erased e
            where e.type = t.type and e.position between lower and upper order by e.position limit 1) o;
    else
        select t.tag, c.entries into rarest, fewest from unnest(of_tags) t(tag), lateral (
                select count(*)::int as entries from (
                    select from :schema.erased_tags g
                    where g.tag = t.tag and g.position between lower and upper limit 4096) o) c
            order by c.entries limit 1;
        if of_types is not null and fewest > 0 then
            select count(*) into n from (
                select from unnest(of_types) t(type), lateral (
                    (select from :schema.erased e
                     where e.type = t.type and e.position between lower and upper limit fewest)
                    union all
                    (select from :schema.events e
                     where e.type = t.type and e.position between lower and upper limit fewest)) o limit fewest) c;
        end if;
    end if;
    if n < fewest then
        -- The types are rarer than each of the tags.
        select min(o.position) into gone from unnest(of_types) t(type), lateral (
            select e.position from :schema.erased e where e.type = t.type and e.position between lower and upper
            union all
            select e.position from :schema.events e where e.type = t.type and e.position between lower and upper) o
            where not exists (
                select from unnest(of_tags) d(tag) where not exists (
                    select from :schema.erased_tags x where x.tag = d.tag and x.position = o.position));
    elsif of_tags is not null then
        select g.position into gone from :schema.erased_tags g
            where g.tag = rarest and g.position between lower and upper
              and not exists (
                  select from unnest(of_tags) o(tag) where not exists (
                      select from :schema.erased_tags x where x.tag = o.tag and x.position = g.position))
              and (of_types is null or exists (
                  select from :schema.erased e where e.position = g.position and e.type = any (of_types)) or exists (
                  select from :schema.events e where e.position = g.position and e.type = any (of_types)))
            order by g.position limit 1;
    end if;
    return least(found, gone);
end
$body$;

-- Returns how many events `find_first` looks at, about, or `most` if they may be more. For `search`, whose settings it needs.
--
-- The events of one demand bound the search. So a few of each are counted, and more only if no demand has few.
create function :schema.search_cost(of_tags text[], of_types text[], lower bigint, upper bigint, most int) returns int
    language plpgsql stable
as $body$
declare
    tag_count constant int := coalesce(cardinality(of_tags), 0);
    few constant int := 16;
    budget int := least(few + 1, most);
    cost int;
    cost_erased int := most;
    n int;
begin
    loop
        cost := budget;
        for demand in 1 .. tag_count loop
            select count(*) into n from (
                select from :schema.event_tags g
                where g.tag = of_tags[demand] and g.position between lower and upper
                order by g.position limit budget) c;
            cost := least(cost, n);
            exit when cost <= few;
        end loop;
        if cost > few and of_types is not null then
            select count(*) into n from (
                select from unnest(of_types) t(type), lateral (
                    select from :schema.events e
                    where (e.type, e.position) >= (t.type, lower) and (e.type, e.position) <= (t.type, upper)
                    order by e.type, e.position limit budget) o limit budget) c;
            cost := least(cost, n);
        end if;
        exit when cost < budget or budget = most;
        budget := most;
    end loop;
    if cost < most and exists (select from :schema.erased_tags) then
        for demand in 1 .. tag_count loop
            select count(*) into n from (
                select from :schema.erased_tags g
                where g.tag = of_tags[demand] and g.position between lower and upper
                order by g.position limit most) c;
            cost_erased := least(cost_erased, n);
            exit when cost_erased <= few;
        end loop;
        cost := least(cost + cost_erased, most);
    end if;
    return cost;
end
$body$;

-- Returns whether the event at a position matches one item of an append condition, erased or not.
create function :schema.is_match(of_tags text[], of_types text[], at bigint) returns boolean
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
as $body$
begin
    return not exists (
            select from unnest(of_tags) o(tag)
            where not exists (select from :schema.event_tags g where g.tag = o.tag and g.position = at)
              and not exists (select from :schema.erased_tags g where g.tag = o.tag and g.position = at))
        and (of_types is null
            or exists (select from :schema.events e where e.position = at and e.type = any (of_types))
            or exists (select from :schema.erased e where e.position = at and e.type = any (of_types)));
end
$body$;

-- Returns for each item the first event from `lower` to `upper`, and beyond item_after, that matches; null if there is none.
-- Returns null if one of these events was erased, or if there are so many that `pairs_max` pairs of item and event may not do.
--
-- For many items and a few events: these are read once, and only items with one of their terms are compared with them.
create function :schema.find_new(
    item_after bigint[], item_types text[], item_tags text[], lower bigint, upper bigint, pairs_max bigint
) returns bigint[]
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set enable_mergejoin = off
    set enable_nestloop = off
    set jit = off
as $body$
declare
    present bigint;
begin
    if (upper - lower + 1) * cardinality(item_after) > pairs_max then
        return null;
    end if;
    select count(*) into present from :schema.events e where e.position between lower and upper and e.content_type > 0;
    if present < upper - lower + 1 then
        return null;
    end if;
    return array(
        with fresh as materialized (
            select e.position, e.type, e.tags from :schema.events e where e.position between lower and upper),
        items as materialized (
            select i.n, i.after, i.types::text[] as types, i.tags::text[] as tags
            from unnest(item_after, item_types, item_tags) with ordinality i(after, types, tags, n)),
        matching as (
            select i.n, f.position
            from items i join (select f.position, f.type, f.tags, g.tag from fresh f, unnest(f.tags) g(tag)) f
                on f.tag = i.tags[1]
            where f.position > i.after and f.tags @> i.tags and (i.types is null or f.type = any (i.types))
            union all
            select i.n, f.position
            from (select i.n, i.after, t.type from items i, unnest(i.types) t(type) where i.tags is null) i
                join fresh f on f.type = i.type
            where f.position > i.after)
        select m.position
        from items i left join (select m.n, min(m.position) as position from matching m group by m.n) m on m.n = i.n
        order by i.n);
end
$body$;

-- Searches the log for events that match items of append conditions. The lock of appends need not be held.
--
-- The items come as those of `append`. through: the head of the log, and through_id: the id of the event there.
-- matches: for each item the first position beyond item_after that matches; null if none does up to `through`; 0 if that is
-- not known. It need not be known behind a condition of the same append that fails. Nor is it known of an item whose search
-- costs more than what is left of cost_max for all items, and of the items behind it in the same append. Without cost_max
-- there is no limit. A term costs as much as an event, because it is looked up even if no event has it.
--
-- Items that were searched for until a moment ago are compared with the few events since, all at once and at no cost: so an
-- append that was searched for is decided, however many terms it has and however many others are appended meanwhile. With a
-- cost_max of 0 nothing is searched for.
create function :schema.search(
    item_append int[], item_condition int[], item_after bigint[], item_types text[], item_tags text[], cost_max int,
    out through bigint, out through_id uuid, out matches bigint[]
) language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set enable_bitmapscan = off
    set enable_sort = off
as $body$
declare
    new_max constant bigint := case when cost_max is null then 1024 when cost_max = 0 then 0 else 256 end;
    pairs_max constant bigint := case when cost_max is null then 67108864 else 1048576 end;
    budget int := cost_max;
    cost int;
    of_tags text[];
    of_types text[];
    lower bigint;
    oldest bigint;
    new_found bigint[];
    settled_append int;
    settled_condition int;
begin
    select e.position, e.id into through, through_id from :schema.events e order by e.position desc limit 1;
    through := coalesce(through, 0);
    matches := array_fill(null::bigint, array[cardinality(item_append)]);
    select min(i.after) into oldest from unnest(item_after) i(after)
        where i.after >= through - new_max and i.after < through;
    if oldest is not null then
        new_found := :schema.find_new(item_after, item_types, item_tags, oldest + 1, through, pairs_max);
    end if;
    for j in 1 .. cardinality(item_append) loop
        if item_append[j] = settled_append and item_condition[j] > settled_condition then
            matches[j] := 0;
            continue;
        end if;
        if new_found is not null and item_after[j] >= oldest then
            if new_found[j] is not null then
                matches[j] := new_found[j];
                settled_append := item_append[j];
                settled_condition := item_condition[j];
            end if;
            continue;
        end if;
        of_tags := item_tags[j];
        of_types := item_types[j];
        -- Whether there is an event at all needs no search.
        continue when item_after[j] >= through or (of_types is null and of_tags is null);
        lower := item_after[j] + 1;
        if budget is not null then
            -- The first event of a single demand is the answer.
            cost := coalesce(cardinality(of_tags), 0) + coalesce(cardinality(of_types), 0);
            if cost < budget and coalesce(cardinality(of_tags), 0) + (of_types is not null)::int > 1 then
                cost := cost + :schema.search_cost(of_tags, of_types, lower, through, budget - cost);
            end if;
            if cost >= budget then
                -- This one begins with what an earlier search found.
                matches[j] := case when :schema.is_match(of_tags, of_types, lower) then lower else 0 end;
                settled_append := item_append[j];
                settled_condition := case when matches[j] = 0 then -1 else item_condition[j] end;
                budget := budget - (budget + 15) / 16;
                continue;
            end if;
            budget := budget - cost;
        end if;
        matches[j] := :schema.find_first(of_tags, of_types, lower, through);
        if matches[j] is not null then
            settled_append := item_append[j];
            settled_condition := item_condition[j];
        end if;
    end loop;
end
$body$;

-- Decides a group of appends one after the other, and writes those that hold. The only way for events into the log.
--
-- Names come escaped (no character U+0000). Positions and revisions beyond bigint come as its maximum.
-- The parameters of one prefix (append, write, event, item, conflict) are parallel arrays of one element each.
-- A check is a write of no events, behind the writes of its append, and about the stream before that append.
-- Expected revisions: -3 any, -2 stream exists, -1 no stream, else exactly this.
-- known_head is the head after the caller's last append, and known_revisions are the revisions of `streams` at that head, or
-- null. While the log still ends there, no revision is looked up. Only the owner is believed: a false revision would leave a
-- gap in a stream for good.
-- check_ids: look ids up before deciding. Without it a stored id raises an error (23505, or LF004) and the caller repeats.
-- cost_max: the limit of `search` for the items of all appends; null if each append has to be decided.
-- append_searched, append_searched_ids: null, or up to where the caller searched for the items of an append already, and the
-- id of the event there. Its item_after say what it found.
-- Refusals: 0 accepted, 1 an id is stored, 2 wrong revision (places: write, details: revision, -1 none),
-- 3 condition failed (places: condition, details: position). Not decided: 4 its items have to be searched for before,
-- 5 what was searched was another log, which a restored server may have had, 6 its streams are those of an append before it
-- that is not decided.
create function :schema.append(
    streams text[],
    append_writes int[], append_events int[],
    write_stream int[], write_expected bigint[], write_events int[],
    event_write int[], event_nth int[], event_streams text[], event_ids uuid[], event_types text[],
    event_content_types smallint[], event_data bytea[], event_metadata bytea[], event_tags text[], event_times timestamptz[],
    item_append int[], item_condition int[], item_after bigint[], item_types text[], item_tags text[],
    conflict_item int[], conflict_write int[], conflict_nth int[],
    known_head bigint, known_revisions bigint[],
    check_ids boolean, durable boolean,
    cost_max int, append_searched bigint[], append_searched_ids uuid[],
    out head bigint,
    out firsts bigint[], out revisions bigint[],
    out refusals smallint[], out places int[], out details bigint[],
    out stored_ids uuid[], out stored_positions bigint[], out stored_streams text[], out stored_revisions bigint[]
) language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set plan_cache_mode = force_generic_plan
as $body$
declare
    appends constant int := cardinality(append_writes);
    items constant int := cardinality(item_append);
    conflicts constant int := cardinality(conflict_item);
    next bigint;
    heads bigint[];
    befores bigint[];
    some_erased boolean;
    searched bigint := 0;
    new_found bigint[];
    undecided boolean;
    held boolean[];
    item_found bigint[] := array_fill(null::bigint, array[items]);
    positions bigint[] := array_fill(null::bigint, array[cardinality(write_stream)]);
    w int := 1;
    i int := 1;
    k int := 1;
    w_first int;
    i_end int;
    at bigint;
    refusal int;
    want bigint;
    hit bigint;
    found bigint;
    failed int;
    is_stored boolean;
    moment timestamptz;
    written bigint;
    -- The owner runs this function. Who may act as the owner could write to the table anyway, so is believed.
    is_owner constant boolean := pg_has_role(session_user, current_user, 'usage');
    believed constant bigint := case when is_owner then known_head end;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'isolation level of the transaction is %; append expects read committed',
            current_setting('transaction_isolation') using errcode = 'LF002';
    end if;
    if durable and (current_setting('synchronous_commit') = 'off' or current_setting('fsync') = 'off') then
        raise exception 'server may lose committed events: fsync is %, synchronous_commit is %; expected on',
            current_setting('fsync'), current_setting('synchronous_commit') using errcode = 'LF003';
    end if;

    if exists (select from unnest(event_content_types) c(code) where c.code = 0) then
        -- The column allows it for `erase`. No read would show the event.
        raise exception 'content type of an event is 0, which is that of erased events; expected 1 to 4'
            using errcode = '23514';
    end if;
    if not is_owner and (0 > any (write_events) or exists (
            select from unnest(event_write, event_nth, event_streams) x(write, nth, stream)
                left join unnest(streams) with ordinality s(stream, n) on s.n = write_stream[x.write]
            where x.nth < 0 or x.nth >= write_events[x.write] or s.stream is distinct from x.stream)) then
        -- Each would leave a gap in a stream, or in the log.
        raise exception 'places of events within their writes are not 0 to their number, or a write has two streams'
            using errcode = '23514';
    end if;

    -- Conditions that look far back are evaluated before the lock is taken. Under the lock only newer events are searched.
    if items > 0 then
        select s.through, s.matches into searched, item_found
            from :schema.search(item_append, item_condition, item_after, item_types, item_tags, cost_max) s;
    end if;

    -- Held to the end of the transaction, so that positions follow commits.
    lock table :schema.append_lock in exclusive mode;
    head := coalesce((select max(e.position) from :schema.events e), 0);
    next := head + 1;
    moment := clock_timestamp();
    if items > 0 and head > searched then
        new_found := :schema.find_new(item_after, item_types, item_tags, searched + 1, head, 16777216);
    end if;

    firsts := array_fill(null::bigint, array[appends]);
    revisions := array_fill(null::bigint, array[cardinality(write_stream)]);
    refusals := array_fill(0::smallint, array[appends]);
    places := array_fill(0, array[appends]);
    details := array_fill(0::bigint, array[appends]);
    if head = believed and array_position(known_revisions, null) is null then
        heads := known_revisions;
    else
        heads := array(
            select coalesce(case when head = believed then s.seen end,
                            (select e.revision from :schema.events e where e.stream = s.stream
                             order by e.revision desc limit 1), -1)
            from unnest(streams, known_revisions) with ordinality s(stream, seen, n) order by s.n);
    end if;
    some_erased := exists (select from :schema.erased) or exists (select from :schema.erased_tags);
    if check_ids then
        select array_agg(k.id), array_agg(k.position), array_agg(k.stream), array_agg(k.revision)
            into stored_ids, stored_positions, stored_streams, stored_revisions
            from (select e.id, e.position, e.stream, e.revision
                  from unnest(event_ids) x(id) join :schema.events e on e.id = x.id
                  union all
                  select e.id, e.position, e.stream, e.revision
                  from unnest(event_ids) x(id) join :schema.erased e on e.id = x.id) k;
    elsif some_erased and exists (
            select from unnest(event_ids) x(id) join :schema.erased e on e.id = x.id) then
        -- No index of the log refuses erased ids.
        raise exception 'an event id is stored already' using errcode = 'LF004';
    end if;

    for a in 1 .. appends loop
        w_first := w;
        refusal := 0;
        is_stored := false;
        undecided := false;
        befores := heads;
        if stored_ids is not null then
            is_stored := exists (
                select from unnest(event_ids, event_write) x(id, write)
                where x.write >= w and x.write < w + append_writes[a] and x.id = any (stored_ids));
        end if;
        if held is not null and exists (
                select from generate_series(w, w + append_writes[a] - 1) v(write) where held[write_stream[v.write]]) then
            refusal := 6;
        elsif is_stored then
            refusal := 1;
            w := w + append_writes[a];
        else
            while w < w_first + append_writes[a] loop
                if write_events[w] > 0 then
                    at := heads[write_stream[w]];
                else
                    at := befores[write_stream[w]];
                end if;
                want := write_expected[w];
                if want <> at and want <> -3 and (want <> -2 or at < 0) then
                    refusal := 2;
                    places[a] := w - w_first;
                    details[a] := at;
                    exit;
                end if;
                revisions[w] := at + 1;
                if write_events[w] > 0 then
                    heads[write_stream[w]] := at + write_events[w];
                end if;
                w := w + 1;
            end loop;
        end if;

        if refusal = 0 and append_searched[a] is not null and (append_searched[a] > head or exists (
                select from :schema.events e
                where e.position = append_searched[a] and e.id <> append_searched_ids[a])) then
            refusal := 5;
        end if;

        -- Items of this append, in the order of its conditions. The answer is the earliest event of the first that fails.
        failed := null;
        hit := null;
        while i <= items and item_append[i] = a loop
            if refusal = 0 and not undecided and (failed is null or failed = item_condition[i]) then
                found := item_found[i];
                if found = 0 then
                    undecided := true;
                elsif item_types[i] is null and item_tags[i] is null then
                    if item_after[i] < next - 1 then
                        found := item_after[i] + 1;
                    end if;
                elsif found is null and new_found is not null then
                    found := new_found[i];
                elsif found is null and greatest(item_after[i], searched) < head then
                    found := :schema.find_first(
                        item_tags[i]::text[], item_types[i]::text[], greatest(item_after[i], searched) + 1, head);
                end if;
                while k <= conflicts and conflict_item[k] < i loop
                    k := k + 1;
                end loop;
                while found is null and k <= conflicts and conflict_item[k] = i loop
                    if positions[conflict_write[k]] + conflict_nth[k] > item_after[i] then
                        found := positions[conflict_write[k]] + conflict_nth[k];
                    end if;
                    k := k + 1;
                end loop;
                if found > 0 then
                    failed := item_condition[i];
                    hit := least(hit, found);
                end if;
            end if;
            i := i + 1;
        end loop;
        if undecided then
            refusal := 4;
        elsif failed is not null then
            refusal := 3;
            places[a] := failed;
            details[a] := hit;
        end if;

        if refusal = 0 then
            firsts[a] := next;
            for v in w_first .. w - 1 loop
                positions[v] := next;
                next := next + write_events[v];
            end loop;
        else
            refusals[a] := refusal;
            if refusal > 1 then
                if not check_ids and exists (
                    select from unnest(event_ids, event_write) x(id, write) join :schema.events e on e.id = x.id
                    where x.write >= w_first and x.write < w_first + append_writes[a]) then
                    raise exception 'an event id is stored already' using errcode = 'LF004';
                end if;
                heads := befores;
                w := w_first + append_writes[a];
            end if;
            if refusal > 3 then
                for v in w_first .. w - 1 loop
                    held[write_stream[v]] := true;
                end loop;
            end if;
        end if;
    end loop;

    if next > head + 1 then
        insert into :schema.events (position, revision, id, time, content_type, stream, type, data, metadata, tags)
            select positions[x.write] + x.nth, revisions[x.write] + x.nth, x.id, coalesce(x.time, moment), x.content_type,
                   x.stream, x.type, x.data, x.metadata, x.tags::text[]
            from unnest(event_write, event_nth, event_ids, event_times, event_content_types, event_streams, event_types,
                        event_data, event_metadata, event_tags)
                 x(write, nth, id, time, content_type, stream, type, data, metadata, tags)
            where positions[x.write] is not null;
        get diagnostics written = row_count;
        if written <> next - head - 1 then
            raise exception '% of % events were not stored: a trigger or a rule of the table dropped them',
                next - head - 1 - written, next - head - 1 using errcode = '23000';
        end if;
        if array_length(event_tags, 1) > 0 then
            insert into :schema.event_tags (tag, position)
                select t.tag, positions[x.write] + x.nth
                from unnest(event_write, event_nth, event_tags) x(write, nth, tags),
                     unnest(x.tags::text[]) t(tag)
                where positions[x.write] is not null;
        end if;
    end if;
    if stored_ids is not null and durable then
        -- An acknowledged repetition is as durable, and as replicated, as what it repeats: a commit record behind it.
        perform pg_logical_emit_message(true, 'leftfold', '');
    end if;
end
$body$;
