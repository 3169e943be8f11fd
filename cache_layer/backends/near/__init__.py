"""The near cache: copies of Redis values in this process, dropped when Redis says they changed."""
