"""The PostgreSQL function that appends messages, which a migration creates.

Called once for an append, it takes one round trip and is atomic in autocommit. PostgreSQL keeps the
plans of its statements with the connection, so that appends do not plan them again, without
prepared statements of the client, which connection poolers and Django do not use by default. Each
statement in it sees what was committed before the lock was granted.

A change of the function takes a new name, so that an older release and a newer one can run
at the same time.
"""

from __future__ import annotations

NAME = "agent_sessions_append_1"

# Rows: [[role, content, metadata, payload, idempotency key], …]. The result: null if nothing
# was written, or [count of messages, number of the last, the user, seconds between p_now and the
# time of the messages, [id of each]].
CREATE = """
CREATE OR REPLACE FUNCTION agent_sessions_append_1(
    p_session uuid, p_owner text, p_tenant text, p_now timestamptz, p_expiry timestamptz,
    p_rows jsonb, p_keys jsonb
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_number CONSTANT integer := jsonb_array_length(p_rows);
    v_owner CONSTANT agent_sessions_session.user_id%TYPE := p_owner;
    v_count integer;
    v_last integer;
    v_user agent_sessions_session.user_id%TYPE;
    v_now timestamptz;
    v_item jsonb;
    v_id bigint;
    v_ids json;
BEGIN
    IF p_keys IS NOT NULL THEN
        PERFORM FROM agent_sessions_session WHERE id = p_session FOR NO KEY UPDATE;
        -- A statement of its own, to see what was committed before the lock was granted.
        IF EXISTS (
            SELECT FROM agent_sessions_message
            WHERE session_id = p_session AND idempotency_key IS NOT NULL
                AND idempotency_key IN (SELECT jsonb_array_elements_text(p_keys))
        ) THEN
            RETURN NULL;
        END IF;
    END IF;

    UPDATE agent_sessions_session SET
        last_sequence = last_sequence + v_number,
        message_count = message_count + v_number,
        -- Clocks differ, and who waited for the lock has an older time.
        last_message_at = GREATEST(last_message_at, p_now),
        last_activity_at = GREATEST(last_activity_at, p_now),
        updated_at = GREATEST(updated_at, p_now),
        status = CASE WHEN status IN ('completed', 'failed') THEN 'active' ELSE status END,
        expires_at = CASE
            WHEN p_expiry IS NOT NULL AND expires_at IS NOT NULL
            THEN GREATEST(expires_at, p_expiry)
        END
    WHERE id = p_session AND status <> 'archived'
        AND (v_owner IS NULL OR user_id = v_owner)
        AND (p_tenant IS NULL OR tenant = p_tenant)
    RETURNING message_count, last_sequence, user_id, last_message_at
        INTO v_count, v_last, v_user, v_now;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    IF v_number = 1 THEN
        -- Half the work of the statement below.
        v_item := p_rows -> 0;
        INSERT INTO agent_sessions_message (
            session_id, user_id, sequence, created_at,
            role, content, metadata, payload, idempotency_key
        )
        VALUES (
            p_session, v_user, v_last, v_now,
            v_item ->> 0, v_item ->> 1, v_item -> 2, v_item ->> 3, v_item ->> 4
        )
        RETURNING id INTO v_id;
        RETURN json_build_array(
            v_count, v_last, v_user, EXTRACT(epoch FROM v_now - p_now), json_build_array(v_id)
        );
    END IF;

    WITH inserted AS (
        INSERT INTO agent_sessions_message (
            session_id, user_id, sequence, created_at,
            role, content, metadata, payload, idempotency_key
        )
        SELECT p_session, v_user, v_last - v_number + place, v_now,
            item ->> 0, item ->> 1, item -> 2, item ->> 3, item ->> 4
        FROM jsonb_array_elements(p_rows) WITH ORDINALITY AS given(item, place)
        RETURNING id, sequence
    )
    SELECT json_agg(id ORDER BY sequence) FROM inserted INTO v_ids;
    RETURN json_build_array(v_count, v_last, v_user, EXTRACT(epoch FROM v_now - p_now), v_ids);
END $$
"""
DROP = (
    "DROP FUNCTION IF EXISTS "
    "agent_sessions_append_1(uuid, text, text, timestamptz, timestamptz, jsonb, jsonb)"
)
