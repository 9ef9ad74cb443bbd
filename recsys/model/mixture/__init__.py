"""Candidates of several members, re-ranked by what has ranked best so far."""
