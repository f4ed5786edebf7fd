-- The log: events in the order of their commits, and what finds them.
-- `:schema` stands for the quoted name of the schema, `:partition` for a clause that divides the log, or nothing.

create table :schema.events (
    position bigint not null,
    revision bigint not null,
    id uuid not null,
    time timestamptz not null,
    content smallint not null,
    stream text collate "C" not null,
    type text collate "C" not null,
    data bytea not null,
    metadata bytea,
    tags text[] collate "C"
) :partition;

-- One row per tag and event. Narrow, in the order in which a decision asks: one tag, beyond one position.
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

create function :schema.refuse_change() returns trigger language plpgsql as $body$
begin
    raise exception 'events of % never change: % refused', tg_table_schema, lower(tg_op)
        using errcode = 'LF001', hint = 'append an event that corrects the earlier one';
end
$body$;

create trigger events_never_change before update or delete or truncate on :schema.events
    for each statement execute function :schema.refuse_change();
create trigger tags_never_change before update or delete or truncate on :schema.event_tags
    for each statement execute function :schema.refuse_change();
