"""The learner: torch and numpy only, no Spark and no MLflow. Its state is plain arrays and lists of ids."""
