"""MLflow: the run of an epoch, model versions and their aliases, and the model that is served."""
