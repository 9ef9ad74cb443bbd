"""Two processes that Spark starts train a network that is as good as that of one."""

from itertools import islice
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from bench.harness.streams import STREAMS, batches, read_completejourney
from recsys.config import Settings
from recsys.config.settings import as_settings
from recsys.contracts import InteractionBatch, StepId
from recsys.errors import ConfigError
from recsys.model.evaluation.prequential import evaluate
from recsys.model.neural.ncf import NeuralCf
from recsys.model.recommender import OnlineModel
from recsys.stream.processes import Processes
from recsys.stream.rebuild import rebuild

LEARNED = 4
# Of NDCG, and of the loss on held-out pairs, which noise moves less.
NDCG_WITHIN, LOSS_WITHIN = 0.1, 0.02


def settings_of(root: Path) -> Settings:
    return as_settings(
        {
            "device": "cpu",
            "storage.root": str(root),
            "model.kind": "ncf",
            "model.factors": 8,
            "model.neural": {"mlp_factors": 4, "layers": [8], "teacher": False, "rebuild_epochs": 3, "batch_size": 256},
            "decay.half_life_days": STREAMS["completejourney"].half_life_days,
            "recommend.exclude_seen": False,
            "rebuild.processes": 2,
        }
    )


def absorbed(settings: Settings, learned: list[InteractionBatch]) -> tuple[OnlineModel, NeuralCf]:
    model = OnlineModel(settings)
    for number, batch in enumerate(learned):
        model.absorb(batch, StepId(0, number))
    assert isinstance(model.learner, NeuralCf)
    return model, model.learner


@pytest.mark.heavy
@pytest.mark.process
def test_two_processes_are_as_good_as_one(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    *learned, following = islice(batches(read_completejourney(Path()), 4_000), LEARNED + 1)
    step, quality, losses = StepId(1, LEARNED), [], []
    for several in (False, True):
        model, learner = absorbed(settings, learned)
        learner.elsewhere = Processes(spark, settings) if several else None
        figures = model.refit(step)
        quality.append(evaluate(following, model, {}, settings, step)["model/ndcg_at_20"])
        losses.append(figures["held_out_loss"])
    assert quality[1] == pytest.approx(quality[0], rel=NDCG_WITHIN), quality
    assert losses[1] == pytest.approx(losses[0], rel=LOSS_WITHIN), losses
    assert list((tmp_path / "state").iterdir()) == [], "what the processes have passed on is gone"


def test_only_a_network_is_trained_by_several_processes() -> None:
    with pytest.raises(ConfigError, match=r"^setting 'rebuild.processes': model.kind is 'als', and only the network"):
        rebuild(as_settings({"model.kind": "als", "rebuild.processes": 2}))
