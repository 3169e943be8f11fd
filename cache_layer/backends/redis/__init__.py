"""Connections to Redis, synchronous and asynchronous, and how operations travel over them."""
