"""python jobs/tune.py --config conf/local.yaml [--output FILE] [key.sub=value ...]"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.cli import run_job
from recsys.config import Settings
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.tuning.search import TuningTrial

EXAMPLES = {
    "half an hour of search": "--config my.yaml tune.seconds=1800",
    "only two settings": "--config my.yaml tune.keys=[model.alpha,decay.half_life_days]",
    "another learner, to another file": "--config my.yaml --output als.yaml model.kind=als",
}
SETTINGS = (
    "tune.trials",
    "tune.seconds",
    "tune.share",
    "tune.keys",
    "model.kind",
    "recommend.k",
    "gate.confidence",
    "gate.min_users",
    "device",
    "storage.root",
)
OPTIONS: dict[str, dict[str, Any]] = {
    "--output": {
        "metavar": "FILE",
        "default": "tuned.yaml",
        "help": "the settings that it chose, for --config after your own; tuned.yaml without it",
    },
}


def tune(settings: Settings, output: str) -> None:
    """Search model settings that rank better on the first part of the interaction log, and check them on the rest.

    It replays the log, test-then-train, and writes the settings only if they are better there by more than noise.
    Tables are only read, so it may run while the stream does.
    """
    # Imported here, so that help does not wait for torch.
    try:
        from recsys.stream.tune import tune_stream
        from recsys.tuning.words import after_trial, result
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ConfigError(f"tune needs {error.name}: pip install 'recsys-stream[tune]'") from error
    trials: list[TuningTrial] = []

    def tell(trial: "TuningTrial") -> None:
        trials.append(trial)
        print(after_trial(trials, settings.recommend.k), flush=True)

    tuning = tune_stream(settings, Path(output), tell)
    print("\n".join(result(tuning, settings, output)))


if __name__ == "__main__":
    sys.exit(run_job(tune, examples=EXAMPLES, settings=SETTINGS, options=OPTIONS))
