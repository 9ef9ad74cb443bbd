"""Recommenders that learn from every micro-batch."""
