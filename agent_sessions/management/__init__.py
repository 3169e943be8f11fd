"""Commands for what the tasks do, and for conversations as files."""
