"""The near cache: copies in this process of what Redis holds, dropped when Redis says they changed."""
