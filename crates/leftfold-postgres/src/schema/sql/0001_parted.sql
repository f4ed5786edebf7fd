-- Indexes of a log that is divided by position, and the partitions themselves.
--
-- A unique index of a divided table must hold the column it is divided by. That a stream's revisions and all ids are unique
-- is therefore up to the append function, which decides under one lock.

alter table :schema.events add primary key (position);
create index events_by_stream on :schema.events (stream, revision);
create index events_by_id on :schema.events (id);
create index events_by_type on :schema.events (type, position);
create index events_by_category on :schema.events (:schema.category(stream), position);

-- How many positions a partition holds, and how many partitions were made; old ones may have been detached since.
create table :schema.partitioning (positions bigint not null, made bigint not null);
insert into :schema.partitioning values (:size, 0);

-- Makes partitions so that everything up to a position has a place, and one more.
-- Attached instead of created in place: that takes a lock that readers do not notice.
create function :schema.extend(through bigint) returns void language plpgsql security definer
    set search_path = pg_catalog as $body$
declare
    size constant bigint := (select p.positions from :schema.partitioning p);
    number bigint := (select made from :schema.partitioning);
    name text;
begin
    while number <= through / size + 1 loop
        name := 'events_' || number;
        execute format('create table :schema.%I (like :schema.events including defaults including constraints)', name);
        execute format('create trigger events_never_change before update or delete or truncate on :schema.%I
                        for each statement execute function :schema.refuse_change()', name);
        execute format('alter table :schema.events attach partition :schema.%I for values from (%s) to (%s)',
                       name, number * size, (number + 1) * size);
        number := number + 1;
    end loop;
    update :schema.partitioning set made = number;
end
$body$;
select :schema.extend(0);
