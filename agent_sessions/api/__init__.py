"""The REST face of agent_sessions: mount `agent_sessions.api.urls`. Needs the extra `api`."""
