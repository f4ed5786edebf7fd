-- Privileges for roles that are not the owner.

-- Grants a role what appending and reading needs. Such a role can neither change nor remove an event.
create function :schema.grant_append(role name) returns void language plpgsql as $body$
begin
    perform :schema.grant_read(role);
    execute format('grant execute on all functions in schema %s to %I', ':schema', role);
    execute format('revoke execute on function %s.grant_append(name), %s.grant_read(name), %s.grant_scavenge(name),
                    %s.erase(text[], bigint[], bigint[], int, bigint, boolean) from %I',
                   ':schema', ':schema', ':schema', ':schema', role);
    execute format('grant insert, update, delete on %s.snapshots, %s.checkpoints, %s.leases, %s.parked_events to %I',
                   ':schema', ':schema', ':schema', ':schema', role);
end
$body$;

-- Grants a role what reading needs.
create function :schema.grant_read(role name) returns void language plpgsql as $body$
begin
    execute format('grant usage on schema %s to %I', ':schema', role);
    execute format('grant select on all tables in schema %s to %I', ':schema', role);
    execute format('grant execute on function %s.category(text), %s.as_json(bytea) to %I', ':schema', ':schema', role);
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
