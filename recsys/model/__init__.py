"""The learner: torch, numba and numpy only, no Spark and no MLflow. Its state is plain arrays and lists of ids."""

import os

# The learner shares its cores with Spark's. By default torch's idle threads spin while they wait for each other, which
# made an update ten times slower whenever something else ran; sleeping costs microseconds. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
