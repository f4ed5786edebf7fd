-- Privileges for roles that are not the owner. Each function names what it grants, so a later function or table is granted
-- to no role by accident.

-- Grants a role what reading needs.
create function :schema.grant_read(role name) returns void language plpgsql as $body$
begin
    execute format('grant usage on schema %s to %I', ':schema', role);
    execute format('grant select on %1$s.events, %1$s.event_tags, %1$s.erased, %1$s.erased_tags, %1$s.migrations,
                    %1$s.snapshots, %1$s.checkpoints, %1$s.leases, %1$s.parked_events, %1$s.streams, %1$s.events_json
                    to %2$I', ':schema', role);
    execute format('grant execute on function %1$s.category(text), %1$s.as_json(bytea),
                    %1$s.find(text[], text[], text, bigint, bigint, boolean, boolean, int) to %2$I', ':schema', role);
end
$body$;

-- Grants a role what appending and reading needs, and saving snapshots. It can neither change nor remove an event.
create function :schema.grant_append(role name) returns void language plpgsql as $body$
begin
    perform :schema.grant_read(role);
    execute format('grant execute on function %s, %s.search(int[], int[], bigint[], text[], text[], int) to %I', (
        select p.oid::regprocedure from pg_catalog.pg_proc p
        where p.pronamespace = ':schema'::regnamespace and p.proname = 'append'), ':schema', role);
    execute format('grant insert, update, delete on %s.snapshots to %I', ':schema', role);
end
$body$;

-- Grants a role what reading and acting as a consumer needs.
create function :schema.grant_consume(role name) returns void language plpgsql as $body$
begin
    perform :schema.grant_read(role);
    execute format('grant insert, update, delete on %1$s.checkpoints, %1$s.leases, %1$s.parked_events to %2$I',
                   ':schema', role);
end
$body$;

-- Grants a role what reading and scavenging needs.
create function :schema.grant_scavenge(role name) returns void language plpgsql as $body$
begin
    perform :schema.grant_read(role);
    execute format('grant execute on function %s.erase(text[], bigint[], bigint[], int, bigint, boolean) to %I',
                   ':schema', role);
end
$body$;

revoke execute on all functions in schema :schema from public;
