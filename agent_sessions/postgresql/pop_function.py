"""The PostgreSQL function that takes the last message of a session back.

It is one round trip and atomic in autocommit, as appending is. A change of the function takes a new
name, so that an older release and a newer one can run at the same time.
"""

from __future__ import annotations

NAME = "agent_sessions_pop_1"

# No row if there is no such session, if it is archived or has no messages; otherwise the message
# that was deleted, and the number of its deletion.
CREATE = """
CREATE OR REPLACE FUNCTION agent_sessions_pop_1(
    p_session uuid, p_owner text, p_tenant text, p_now timestamptz
) RETURNS TABLE (
    id bigint, user_id agent_sessions_session.user_id%TYPE, sequence integer, role text,
    content text, metadata jsonb, payload text, idempotency_key text, created_at timestamptz,
    revision integer, number integer
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_owner CONSTANT agent_sessions_session.user_id%TYPE := p_owner;
    v_number integer;
    v_gone record;
BEGIN
    SELECT last_sequence + 1 FROM agent_sessions_session
    WHERE id = p_session AND status <> 'archived'
        AND (v_owner IS NULL OR user_id = v_owner)
        AND (p_tenant IS NULL OR tenant = p_tenant)
    FOR NO KEY UPDATE INTO v_number;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    -- A statement of its own, to see what was committed before the lock was granted.
    DELETE FROM agent_sessions_message
    WHERE session_id = p_session AND sequence = (
        SELECT last.sequence FROM agent_sessions_message AS last
        WHERE last.session_id = p_session
        ORDER BY last.session_id DESC, last.sequence DESC LIMIT 1
    )
    RETURNING * INTO v_gone;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    INSERT INTO agent_sessions_deletedmessage (session_id, sequence, revision)
    VALUES (p_session, v_gone.sequence, v_number);

    UPDATE agent_sessions_session SET
        last_sequence = v_number,
        last_change = v_number,
        message_count = GREATEST(message_count - 1, 0),
        last_message_at = (
            SELECT last.created_at FROM agent_sessions_message AS last
            WHERE last.session_id = p_session
            ORDER BY last.session_id DESC, last.sequence DESC LIMIT 1
        ),
        updated_at = GREATEST(updated_at, p_now)
    WHERE id = p_session;

    RETURN QUERY SELECT v_gone.id, v_gone.user_id, v_gone.sequence, v_gone.role::text,
        v_gone.content, v_gone.metadata, v_gone.payload, v_gone.idempotency_key::text,
        v_gone.created_at, v_gone.revision, v_number;
END $$
"""
DROP = "DROP FUNCTION IF EXISTS agent_sessions_pop_1(uuid, text, text, timestamptz)"
