"""Watching a model compute: counters, the list of its products, and where a NaN comes from."""
