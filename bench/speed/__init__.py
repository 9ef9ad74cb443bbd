"""How fast it is, with the peers in the same run: `python -m bench.speed.NAME`."""
