"""Prequential (test-then-train) evaluation, ranking metrics, and the gate."""
