"""What only PostgreSQL has: the append function, the search index, partitions."""
