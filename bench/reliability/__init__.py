"""What holds when things go wrong: `python -m bench.reliability.NAME`."""
