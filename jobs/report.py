"""python jobs/report.py --config conf/local.yaml [--output FILE] [key.sub=value ...]"""

import sys
from pathlib import Path
from typing import Any

from recsys.cli import run_job
from recsys.config import Settings
from recsys.errors import ConfigError

EXAMPLES = {
    "a page about the stream": "--config my.yaml",
    "to another file": "--config my.yaml --output /tmp/report.html",
    "with the titles of items, from a catalog": "--config my.yaml items.path=catalog.csv",
}
SETTINGS = ("storage.root", "storage.catalog", "mlflow.model_name", "mlflow.tracking_uri", "recommend.k", "items.path")
OPTIONS: dict[str, dict[str, Any]] = {
    "--output": {"metavar": "FILE", "help": "the page; plots/report.html under storage.root without it"},
}


def report(settings: Settings, output: str | None) -> None:
    """Write one self-contained HTML page about the stream: quality, versions, drift, freshness, lists.

    It only reads, so it may run while the stream does. The page holds personal data.
    """
    # Imported here, so that help does not wait for MLflow.
    try:
        from recsys.report.make import write_report
    except ModuleNotFoundError as error:
        raise ConfigError(f"report needs {error.name}: pip install 'recsys-stream[report]'") from error
    print(f"report: {write_report(settings, None if output is None else Path(output))}")


if __name__ == "__main__":
    sys.exit(run_job(report, examples=EXAMPLES, settings=SETTINGS, options=OPTIONS))
