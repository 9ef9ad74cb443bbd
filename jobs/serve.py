"""python jobs/serve.py --config conf/local.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings
from recsys.errors import ConfigError

EXAMPLES = {
    "answer requests on this machine": "--config my.yaml",
    "on another port, for all networks": "--config my.yaml serve.host=0.0.0.0 serve.port=8080",
    "look for a newer champion every half a minute": "--config my.yaml serve.refresh_seconds=30",
}
SETTINGS = (
    "serve.host",
    "serve.port",
    "serve.refresh_seconds",
    "serve.max_body_bytes",
    "serve.timeout_seconds",
    "experiment.arms",
    "mlflow.model_name",
    "mlflow.tracking_uri",
    "storage.root",
)


def serve(settings: Settings) -> None:
    """Answer requests for recommendations over HTTP, with the champion, until it is stopped.

    A newer champion takes over while requests are answered. With `experiment.arms`, each user is answered by the
    version of their arm. POST /recommendations computes lists, GET /recommendations/USER gives that of the table where
    the version that answers has made it; /healthz and /metrics tell of the server.
    """
    # Imported here, so that help does not wait for MLflow.
    try:
        from recsys.server import run
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve needs {error.name}: pip install 'recsys-stream[serve]'") from error
    run.serve(settings)


if __name__ == "__main__":
    sys.exit(run_job(serve, examples=EXAMPLES, settings=SETTINGS))
