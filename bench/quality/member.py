"""One more member of the mixture: the default members with it and without it, on the same batches.

    python -m bench.quality.member --member content|sequence|ncf --data DIR [--stream NAME] [--encoder NAME] [--quick]

Streams real events through both models. Before a batch is learned, both rank all items for the same users and are
measured on what these then did (see `recsys.model.evaluation.prequential`); the first fifth of the batches warms up.
The ratio of NDCG@20 comes with its standard error, batches being drawn at random, and learning with its median time.

DIR holds `NAME.parquet`; `content` takes the streams that have item texts, `NAME_items.parquet`, too. A batch brings
the vectors of the items that come first in it. Texts are encoded once, at some 100 a second on a CPU, and kept in
var/cold_start. The last line gives the smallest and the mean ratio of NDCG over the streams, the mean ratio of recall,
and the largest ratio of the time to learn. With --quick one stream is read, and of it a third.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bench.harness.streams import STREAMS, batches
from bench.quality.cold_start import WITH_TEXT, packaged_encoder, read_catalog
from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.errors import RecsysError
from recsys.evaluate import WARM_UP_SHARE
from recsys.model.common.arrays import FloatArray
from recsys.model.evaluation.prequential import evaluate_users
from recsys.model.interactions.described import Described, with_vectors
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel
from recsys.model.text.encoder import TextEmbeddings
from recsys.serving.content import coded

MEMBERS = ("content", "sequence", "ncf")
QUICK_STREAM, QUICK_SHARE = "ml_latest_small", 3


@dataclass(frozen=True)
class Compared:
    """What was measured on a stream: without and with the member, (2, batches) each; the time of all batches."""

    ndcg: FloatArray
    recall: FloatArray
    seconds: FloatArray

    def ratio(self) -> tuple[float, float]:
        """NDCG with the member over that without, and its standard error."""
        plain, told = self.ndcg
        value = float(told.sum() / plain.sum())
        return value, float(np.sqrt(((told - value * plain) ** 2).sum()) / plain.sum())

    @property
    def recall_ratio(self) -> float:
        """Recall with the member over that without."""
        return float(self.recall[1].sum() / self.recall[0].sum())

    @property
    def time_ratio(self) -> float:
        """Median time to learn a batch with the member over that without."""
        plain, told = np.median(self.seconds, axis=1)
        return float(told / plain)


def compare(
    title: str, stream: Sequence[InteractionBatch], catalog: Described | None, settings: Settings, member: str
) -> Compared:
    """Evaluate each batch by both models, then let both learn it.

    Args:
        title: For the progress bar.
        stream: All batches.
        catalog: Vectors of the items that have a text; None: the batches bring none.
        settings: Of the stream.
        member: The further member.
    """
    usual = settings.model.mixture.members
    models = [OnlineModel(with_members(settings, members)) for members in (usual, [*usual, member])]
    found: list[list[tuple[float, float]]] = [[], []]
    seconds: list[list[float]] = [[], []]
    numbered = ((StepId(0, number), batch) for number, batch in enumerate(stream))
    k, first = settings.recommend.k, max(len(stream) // WARM_UP_SHARE, 1)
    for step, batch in tqdm(with_vectors(catalog, numbered), title, len(stream), unit="batch", dynamic_ncols=True):
        for model, own, spent in zip(models, found, seconds, strict=True):
            if step.batch_id >= first:
                figures = evaluate_users(batch, model, {}, model.settings, step).figures
                own.append((figures[f"model/ndcg_at_{k}"], figures[f"model/recall_at_{k}"]))
            begin = time.perf_counter()
            model.update(batch, step)
            spent.append(time.perf_counter() - begin)
    measured = np.array(found)
    return Compared(measured[..., 0], measured[..., 1], np.array(seconds))


def with_members(settings: Settings, members: list[str]) -> Settings:
    """The settings for a mixture of some members."""
    mixture = settings.model.mixture.model_copy(update={"members": members})
    return settings.model_copy(update={"model": settings.model.model_copy(update={"mixture": mixture})})


def line(title: str, compared: Compared) -> str:
    """What was measured on a stream, for people."""
    (value, error), (plain, told) = compared.ratio(), compared.ndcg.mean(axis=1)
    plain_recall, told_recall = compared.recall.mean(axis=1)
    return (
        f"{title}: NDCG@20 {plain:.4f} -> {told:.4f} ({value:.4f} +- {error:.4f})  "
        f"recall@20 {plain_recall:.4f} -> {told_recall:.4f}  "
        f"learned in {compared.time_ratio:.2f} times the time, {compared.seconds.shape[1]} batches"
    )


def last_line(outcomes: Sequence[Compared]) -> str:
    """The figures of all streams in one line."""
    ratios = [outcome.ratio()[0] for outcome in outcomes]
    recall = float(np.mean([outcome.recall_ratio for outcome in outcomes]))
    slowest = max(outcome.time_ratio for outcome in outcomes)
    return (
        f"member_vs_without={min(ratios):.4f} member_vs_without_mean={np.mean(ratios):.4f} "
        f"member_recall_mean={recall:.4f} member_learn_time={slowest:.2f}"
    )


def catalog_of(folder: Path, name: str, encoder: str | None) -> Described:
    """Vectors of the texts of a stream's items.

    Raises:
        SystemExit: there are no texts, or no encoder.
    """
    named = {"items": {"encoder": encoder or packaged_encoder()}, "storage": {"root": "var/cold_start"}}
    texts = read_catalog(folder, name)
    try:
        vectors = TextEmbeddings(Settings.model_validate(named)).of(texts.texts)
    except RecsysError as error:
        raise SystemExit(str(error)) from error
    return Described(Vocabulary(texts.ids), coded(vectors))


def main(words: Sequence[str] | None = None) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", choices=MEMBERS, required=True, help="the further member")
    parser.add_argument("--data", type=Path, required=True, help="folder of the streams and of their items' texts")
    parser.add_argument("--stream", choices=sorted(STREAMS), help="one of them; all that suit the member, if not given")
    parser.add_argument("--encoder", help="folder or hub name of a sentence encoder; the packaged one, if not given")
    parser.add_argument("--quick", action="store_true", help="a third of one stream")
    chosen = parser.parse_args(words)
    described = chosen.member == "content"
    suited = WITH_TEXT if described else tuple(STREAMS)
    names = [chosen.stream] if chosen.stream else [QUICK_STREAM] if chosen.quick else suited
    outcomes = []
    for name in names:
        stream = STREAMS[name]
        catalog = catalog_of(chosen.data, name, chosen.encoder) if described else None
        events = stream.events(chosen.data)
        parts = list(batches(events[: len(events) // stream.batch * stream.batch], stream.batch))
        parts = parts[: len(parts) // QUICK_SHARE] if chosen.quick else parts
        outcomes.append(compare(name, parts, catalog, stream.settings, chosen.member))
        print(line(f"{name}, {stream.title}", outcomes[-1]), flush=True)
    print(last_line(outcomes))


if __name__ == "__main__":
    main()
