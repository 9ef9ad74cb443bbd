"""The stream: what happens to a micro-batch (start with `pipeline`), and the jobs around it."""
