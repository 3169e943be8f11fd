"""Management commands for the periodic tasks, and for conversations in files."""
