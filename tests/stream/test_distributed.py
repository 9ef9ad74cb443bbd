"""A rebuild on executors gives the factors of a rebuild on one machine, and the stream goes on from either."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys import memory
from recsys.batch_scoring import chosen_version, score
from recsys.config import Settings
from recsys.contracts import INTERACTIONS, RECOMMENDATIONS, StepId
from recsys.errors import ConfigError, InputError
from recsys.model import snapshot
from recsys.registry import artifacts
from recsys.serving import Served
from recsys.storage import snapshot_folder
from recsys.stream import distributed
from recsys.stream.job import run_stream
from recsys.stream.rebuild import Rebuilt, rebuild
from recsys.tables.delta import Tables
from tests.stream.checks import MakeSettings, arrays
from tests.stream.test_rebuild import assert_equal, asking
from tests.streams import write_stream

FILES = 3


@pytest.fixture
def streamed(tmp_path: Path, ready: MakeSettings) -> Settings:
    """A stream of factors that fade, has users with more pairs than are used at once, and users that are damped."""
    settings = ready(
        tmp_path,
        source={"options": {"maxFilesPerTrigger": "1"}, "columns": {"event_id": None}},
        weights={"view": 1, "purchase": 3},
        decay={"half_life_days": 0.0005},  # So short that stored weights are halved on the way.
        model={"kind": "als", "factors": 4, "rebuild_sweeps": 4, "history_cap": 8},
        robustness={"events_per_pair": 2},
        recommend={"k": 5},
    )
    write_stream(Path(settings.source.path), files=FILES)
    run_stream(settings)
    return settings


def served(settings: Settings, rebuilt: Rebuilt) -> Served:
    return artifacts.load_served(rebuilt.version.uri, rebuilt.version.digest)


def test_executors_solve_what_one_machine_does(
    spark: SparkSession, streamed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, whatever the blocks; and the stream continues from it as from the other."""
    elsewhere = Path(streamed.storage.root).with_name("elsewhere")
    shutil.copytree(streamed.storage.root, elsewhere)
    there = streamed.model_copy(update={"storage": streamed.storage.model_copy(update={"root": str(elsewhere)})})
    monkeypatch.setattr(distributed, "_WAVE_BYTES", 64)
    by_one = rebuild(asking(streamed, without_users=["u3"]))
    by_many = rebuild(asking(there, without_users=["u3"], distributed=True))
    a, b = arrays(streamed, StepId(1, FILES-1)), None
    f = distributed.Factors.load(there, StepId(1, FILES-1))
    st = f.learner.state()
    print({n: (st[n].shape, np.array_equal(st[n], a["learner."+n])) for n in st})
    print(np.abs(st["user.factors"]-a["learner.user.factors"]).max())
