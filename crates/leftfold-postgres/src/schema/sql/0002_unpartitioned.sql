-- Indexes of a log that is not partitioned.

alter table :schema.events add primary key (position);
create unique index events_by_stream on :schema.events (stream, revision);
create unique index events_by_id on :schema.events (id);
create index events_by_type on :schema.events (type, position);
create index events_by_category on :schema.events (:schema.category(stream), position);
