-- Indexes of a log that is partitioned by position, and its partitions.
--
-- A unique index of a partitioned table must contain the partition key. The append function, which decides under one lock,
-- therefore ensures that the revisions of a stream and all ids are unique.

alter table :schema.events add primary key (position);
create index events_by_stream on :schema.events (stream, revision);
create index events_by_id on :schema.events (id);
create index events_by_type on :schema.events (type, position);
create index events_by_category on :schema.events (:schema.category(stream), position);

-- How many positions a partition holds, and how many partitions were created. Old ones may have been detached since.
create table :schema.partitioning (positions bigint not null, created bigint not null);
insert into :schema.partitioning values (:size, 0);

-- Creates partitions for all positions up to `through`, and one more.
-- A partition is created as a table and then attached, which takes a lock that does not block readers.
create function :schema.create_partitions(through bigint) returns void language plpgsql security definer
    set search_path = pg_catalog as $body$
declare
    size constant bigint := (select p.positions from :schema.partitioning p);
    number bigint := (select created from :schema.partitioning);
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
    update :schema.partitioning set created = number;
end
$body$;
select :schema.create_partitions(0);
