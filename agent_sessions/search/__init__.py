"""Search terms, their lookups, and excerpts around matches."""
