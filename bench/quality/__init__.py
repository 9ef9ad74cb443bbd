"""How good recommendations are, with the peers in the same run: `python -m bench.quality.NAME`."""
