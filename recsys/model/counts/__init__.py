"""Learners that count: popularity, trend, co-occurrence, repeat consumption."""
