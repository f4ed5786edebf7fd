-- The log: events in the order of their commits, and the table that finds them by tag.
-- The name of the schema, and a clause that partitions the log, are inserted where a colon marks their places.

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
    tags text[] collate "C"
) :partition;

-- One row per tag and event. The key is the order in which an append condition searches: one tag, beyond one position.
create table :schema.event_tags (
    tag text collate "C" not null,
    position bigint not null,
    primary key (tag, position)
);

-- A stream's name up to its first dash, unless nothing stands before that.
-- Not strict: a strict function around a `case` is called for each row instead of becoming a part of the statement.
create function :schema.category(stream text) returns text
    language sql immutable parallel safe
    as $body$
        select case when strpos(stream, '-') > 1 then left(stream, strpos(stream, '-') - 1) else stream end
    $body$;

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
