"""The cache beside its peers, in one run on one Redis: ``python -m benchmarks.cache``."""
