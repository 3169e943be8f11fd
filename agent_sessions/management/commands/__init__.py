"""One command a module: options and printing; the work is done elsewhere."""
