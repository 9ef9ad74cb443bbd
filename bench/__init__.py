"""Benchmarks: each figure the README quotes."""

import recsys.model  # noqa: F401 (says how idle threads wait, which torch reads when it is loaded)
