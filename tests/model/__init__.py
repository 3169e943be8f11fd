"""The cache's protocol as a model: every interleaving of a few clients and faults, explored."""
