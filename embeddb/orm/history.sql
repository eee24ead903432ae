-- The vector of a user from their events, kept up in the transaction that writes an event. Named blocks, composed by
-- embeddb.orm.history_spec from the declaration: identifiers and literals in braces, {{}} for braces of SQL's own.
--
-- The state after an event is e = e * fading + item * weight, in float32, in order of (time, the event's key). A vector
-- kept up event by event is bit for bit the one that is made anew, because both take the same steps in the same
-- order; where the order is broken (a late event, one changed or deleted, an item with another vector) it is made anew.
--
-- Two writers for one user: each locks the user's row before it looks for the last event, so at READ COMMITTED the
-- second one sees what the first wrote; above it, the second fails with a serialization error and may be tried again.
-- Users are locked in the order of their keys. The functions run as their owner, so a writer of events needs no
-- right on users or items.

-- name: scale
-- A vector times a number. pgvector refuses products that underflow; what has faded that far is nothing.
CREATE OR REPLACE FUNCTION {scale}(v {vector_type}, factor real) RETURNS {vector_type}
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN v OPERATOR({vector_schema}.*) array_fill(factor, ARRAY[{dim}])::{vector_type};
EXCEPTION WHEN numeric_value_out_of_range THEN
    RETURN (SELECT array_agg(CASE WHEN abs(x::float8 * factor) < 1e-37 THEN 0 ELSE (x * factor)::real END ORDER BY place)
              FROM unnest(v::real[]) WITH ORDINALITY AS u (x, place))::{vector_type};
END $$;

-- name: compute
-- A user's vector, made anew from all of their events; NULL without an event whose item has a vector.
CREATE OR REPLACE FUNCTION {compute}(who {user_type}) RETURNS {vector_type}
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    e record;
    state {vector_type};
    last_at {at_type};
BEGIN
    FOR e IN SELECT i.{pooled}::{vector_type} AS item, v.{at} AS at, {weight} AS weight
               FROM {events} AS v JOIN {items} AS i ON i.{item_key} = v.{item_ref}
              WHERE v.{user_ref} = who AND i.{pooled} IS NOT NULL AND v.{at} IS NOT NULL
              ORDER BY v.{at}, {event_order}
    LOOP
        state := {step};
        last_at := e.at;
    END LOOP;
    RETURN {stored};
END $$;

-- name: add
-- Adds a statement's new events to their users' vectors; users to whom one of them comes late are made anew.
CREATE OR REPLACE FUNCTION {add}() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    u record;
    e record;
    previous record;
    state {vector_type};
    last_at {at_type};
BEGIN
    -- A bulk load: no row of it is looked up among the others.
    IF (SELECT count(*) FROM new_rows) > 200 THEN
        PERFORM {rebuild}(ARRAY(SELECT DISTINCT v.{user_ref} FROM new_rows AS v WHERE v.{user_ref} IS NOT NULL));
        RETURN NULL;
    END IF;
    FOR u IN SELECT v.{user_ref} AS who FROM new_rows AS v WHERE v.{user_ref} IS NOT NULL GROUP BY 1 ORDER BY 1 LOOP
        SELECT t.{vector} INTO state FROM {users} AS t WHERE t.{user_key} = u.who FOR NO KEY UPDATE;
        CONTINUE WHEN NOT FOUND;
        SELECT v.{at} AS at, {event_keys_named} INTO previous
          FROM {events} AS v JOIN {items} AS i ON i.{item_key} = v.{item_ref}
         WHERE v.{user_ref} = u.who AND i.{pooled} IS NOT NULL AND v.{at} IS NOT NULL
           AND NOT EXISTS (SELECT FROM new_rows AS n WHERE {same_event})
         ORDER BY v.{at} DESC, {event_order_back} LIMIT 1;
        last_at := previous.at;
        IF EXISTS (SELECT FROM new_rows AS v WHERE v.{user_ref} = u.who AND (v.{at}, {event_keys}) < ({previous})) THEN
            state := {compute}(u.who);
        ELSE
            FOR e IN SELECT i.{pooled}::{vector_type} AS item, v.{at} AS at, {weight} AS weight
                       FROM new_rows AS v JOIN {items} AS i ON i.{item_key} = v.{item_ref}
                      WHERE v.{user_ref} = u.who AND i.{pooled} IS NOT NULL AND v.{at} IS NOT NULL
                      ORDER BY v.{at}, {event_order}
            LOOP
                state := {step};
                last_at := e.at;
            END LOOP;
        END IF;
        UPDATE {users} AS t SET {vector} = {stored} WHERE t.{user_key} = u.who;
    END LOOP;
    RETURN NULL;
END $$;

-- name: renew
-- Makes the users anew who lost an event, or had one changed.
CREATE OR REPLACE FUNCTION {renew}() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    whose {user_type}[];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        whose := ARRAY(
            SELECT x.who FROM (SELECT o.who FROM (SELECT {event_image} FROM old_rows AS v EXCEPT
                                                  SELECT {event_image} FROM new_rows AS v) AS o UNION
                               SELECT n.who FROM (SELECT {event_image} FROM new_rows AS v EXCEPT
                                                  SELECT {event_image} FROM old_rows AS v) AS n) AS x
             WHERE x.who IS NOT NULL);
    ELSE
        whose := ARRAY(SELECT DISTINCT v.{user_ref} FROM old_rows AS v WHERE v.{user_ref} IS NOT NULL);
    END IF;
    PERFORM {rebuild}(whose);
    RETURN NULL;
END $$;

-- name: renew_all
-- All events are gone.
CREATE OR REPLACE FUNCTION {renew_all}() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE {users} AS t SET {vector} = NULL WHERE t.{vector} IS NOT NULL;
    RETURN NULL;
END $$;

-- name: follow
-- Items got another vector: their users are made anew, each once a statement. Retrain in one statement.
CREATE OR REPLACE FUNCTION {follow}() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM {rebuild}(ARRAY(
        SELECT DISTINCT v.{user_ref}
          FROM old_rows AS o JOIN new_rows AS n ON n.{item_key} = o.{item_key}
          JOIN {events} AS v ON v.{item_ref} = n.{item_key}
         WHERE v.{user_ref} IS NOT NULL
           AND ((o.{pooled} IS NULL) <> (n.{pooled} IS NULL) OR o.{pooled} OPERATOR({vector_schema}.<>) n.{pooled})));
    RETURN NULL;
END $$;

-- name: rebuild
-- Makes these users' vectors anew; all users' where no keys are given. Returns how many.
CREATE OR REPLACE FUNCTION {rebuild}(keys {user_type}[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    done bigint;
BEGIN
    -- The locks come first, in order, and then a statement of its own, which sees what was written until then.
    PERFORM FROM {users} AS t WHERE keys IS NULL OR t.{user_key} = ANY (keys) ORDER BY t.{user_key} FOR NO KEY UPDATE;
    UPDATE {users} AS t SET {vector} = {compute}(t.{user_key}) WHERE keys IS NULL OR t.{user_key} = ANY (keys);
    GET DIAGNOSTICS done = ROW_COUNT;
    RETURN done;
END $$;

-- name: recent
-- A user's last events as JSON, (item, seconds, weight) in order of time; NULL without events.
CREATE OR REPLACE FUNCTION {compute}(who {user_type}) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT '[' || string_agg(e.event, ', ' ORDER BY e.place DESC) || ']'
      FROM (SELECT jsonb_build_array(v.{item_ref}, {seconds}, {weight})::text AS event,
                   row_number() OVER (ORDER BY v.{at} DESC, {event_order_back}) AS place
              FROM {events} AS v
             WHERE v.{user_ref} = who AND v.{item_ref} IS NOT NULL AND v.{at} IS NOT NULL
             ORDER BY v.{at} DESC, {event_order_back} LIMIT {length}) AS e
$$;

-- name: extend
-- Makes anew who got an event.
CREATE OR REPLACE FUNCTION {add}() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM {rebuild}(ARRAY(SELECT DISTINCT v.{user_ref} FROM new_rows AS v WHERE v.{user_ref} IS NOT NULL));
    RETURN NULL;
END $$;

-- name: arm
-- The triggers of the events.
CREATE OR REPLACE TRIGGER {insert_trigger} AFTER INSERT ON {events} REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION {add}();
CREATE OR REPLACE TRIGGER {update_trigger} AFTER UPDATE ON {events} REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION {renew}();
CREATE OR REPLACE TRIGGER {delete_trigger} AFTER DELETE ON {events} REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION {renew}();
CREATE OR REPLACE TRIGGER {truncate_trigger} AFTER TRUNCATE ON {events}
    FOR EACH STATEMENT EXECUTE FUNCTION {renew_all}();

-- name: arm_items
-- The trigger of the items.
CREATE OR REPLACE TRIGGER {items_trigger} AFTER UPDATE ON {items} REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION {follow}();

-- name: guard
-- They run as their owner, so only the owner, and the triggers, may call them.
REVOKE ALL ON FUNCTION {compute}({user_type}), {rebuild}({user_type}[]), {add}(), {renew}(), {renew_all}() FROM PUBLIC;

-- name: guard_items
-- Nor these.
REVOKE ALL ON FUNCTION {scale}({vector_type}, real), {follow}() FROM PUBLIC;

-- name: disarm
-- The vectors stay as they are; the triggers go with their functions.
DROP FUNCTION IF EXISTS {add}(), {renew}(), {renew_all}(), {follow}() CASCADE;
DROP FUNCTION IF EXISTS {rebuild}, {compute}, {scale};

-- name: note
-- What embeddb.histories and embeddb verify know it by.
INSERT INTO embeddb.history (name, relation, events, spec)
VALUES ({name}, {users_named}::regclass, {events_named}::regclass, {spec}::jsonb)
ON CONFLICT (relation, name) DO UPDATE SET events = excluded.events, spec = excluded.spec;

-- name: forget
DELETE FROM embeddb.history AS h WHERE h.spec ->> 'column' = {column} AND h.relation = to_regclass({users_named});
