"""What Spark's Python workers hold in memory."""

import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from recsys.contracts import StepId
from recsys.registry import versions
from recsys.registry.client import connect
from recsys.registry.runs import GenerationRun
from recsys.scoring import workers
from recsys.scoring.distributed import send_to_executors
from recsys.serving import Served
from tests.registry.served import served_arrays

FOUND = "pid BIGINT, file STRING, inode BIGINT, writable BOOLEAN, total DOUBLE"
FOUND_NAMES = [part.split()[0] for part in FOUND.split(", ")]


def test_workers_map_one_file_that_is_laid_out_once(spark, settings, empty_registry, tmp_path) -> None:
    chosen = settings(tmp_path)
    empty_registry(chosen.storage.root)
    client = connect(chosen)
    arrays = served_arrays([f"u{row}" for row in range(900)], [f"i{row}" for row in range(700)], factors=16)
    run = GenerationRun.open(client, chosen, 0, "stream")
    version = versions.register(client, chosen, run.run_id, Served.of_packed(arrays), StepId(0, 1), {})
    archive = send_to_executors(spark, version)

    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            factors = workers.loaded(archive).arrays["item_factors"]
            below = factors
            while not isinstance(below, np.memmap) and below.base is not None:
                below = below.base
            file = str(below.filename) if isinstance(below, np.memmap) else ""
            columns = [
                [os.getpid()],
                [file],
                [os.stat(file).st_ino],
                [factors.flags.writeable],
                [float(np.abs(factors).sum())],
            ]
            yield pa.RecordBatch.from_arrays([pa.array(column) for column in columns], FOUND_NAMES)

    rows = spark.range(0, 8, 1, 8).mapInArrow(look, FOUND).collect()
    assert len({row.pid for row in rows}) > 1, "there are several workers"
    assert len({(row.file, row.inode) for row in rows}) == 1
    assert rows[0].file.endswith("arrays.safetensors")
    # The compiled code takes arrays that may be written.
    assert all(row.writable for row in rows)
    assert [row.total for row in rows] == pytest.approx([np.abs(arrays["item_factors"]).sum()] * 8, rel=1e-4)
