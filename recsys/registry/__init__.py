"""MLflow: the run of a generation, model versions and their aliases, and the model that is served."""
