"""Benchmarks: each figure the README quotes."""
