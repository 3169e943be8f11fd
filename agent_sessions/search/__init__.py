"""Search terms, the lookups they become, and excerpts around what was found."""
