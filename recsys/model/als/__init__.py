"""Incremental alternating least squares (ALS) for implicit feedback."""
