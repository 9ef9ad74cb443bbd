"""The stream: the stages of a micro-batch (start with `pipeline`), and the jobs around it."""
