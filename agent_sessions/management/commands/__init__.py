"""One module for each command, which reads options and prints; the repository does the work."""
