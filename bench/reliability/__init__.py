"""Whether it holds: hostile records, attacks, hours of running. `python -m bench.reliability.NAME` prints a figure."""
