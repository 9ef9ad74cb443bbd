"""The same bits with any number of threads."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from recsys.contracts import InteractionBatch, StepId
from recsys.model.recommender import OnlineModel
from tests.model.helpers import make_settings

THREADS = (1, 2, 4, 16)


def batches() -> list[InteractionBatch]:
    """Popular items and active users, whose rows are longer than what is read at once."""
    generator = np.random.default_rng(3)
    made = []
    for number in range(5):
        users, items = generator.zipf(1.3, 4_000) % 3_000, generator.zipf(1.2, 4_000) % 2_000
        pairs = sorted({(f"u{user}", f"i{item}") for user, item in zip(users, items, strict=True)})
        weights = generator.integers(1, 5, len(pairs)).astype(np.float64)
        times = 1.7e9 + 3_600 * number + np.arange(len(pairs), dtype=np.float64)
        user_ids, item_ids = map(list, zip(*pairs, strict=True))
        made.append(InteractionBatch(user_ids, item_ids, weights, np.ones(len(pairs), dtype=np.int64), times))
    return made


def digest(kind: str) -> str:
    """Of what a model has learned from all batches and a rebuild, and of what it serves."""
    members = ["als", "trend", "cooccurrence", "repeat", "sessions", "sequence"]
    small = {"factors": 64, "chunk_megabytes": 1, "neural": {"rebuild_epochs": 1}, "mixture": {"members": members}}
    model = OnlineModel(make_settings(model={"kind": kind, **small}, recommend={"exclude_seen": False}))
    for number, batch in enumerate(batches()):
        model.update(batch, StepId(0, number))
    model.refit(StepId(1, 0))
    whole = hashlib.sha256()
    for arrays in (model.state(), model.served().arrays):
        for name, array in sorted(arrays.items()):
            whole.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


@pytest.mark.process
@pytest.mark.parametrize("kind", ["mixture", "ncf"])
def test_every_number_of_threads_gives_the_same_bits(kind: str) -> None:
    """In a process of its own, because the most threads there can be is fixed when the first one starts."""
    most = str(max(THREADS))
    environment = {**os.environ, "NUMBA_NUM_THREADS": most, "OMP_NUM_THREADS": most, "MKL_NUM_THREADS": most}
    command = [sys.executable, "-m", "tests.model.test_threads", kind]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    digests = done.stdout.split()
    assert len(digests) == len(THREADS)
    assert len(set(digests)) == 1, digests


if __name__ == "__main__":
    for threads in THREADS:
        torch.set_num_threads(threads)
        numba.set_num_threads(threads)
        sys.stdout.write(f"{digest(sys.argv[1])}\n")
