"""What runs in Spark's Python workers during a distributed rebuild: batches are weighed, blocks are made and solved."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pyarrow as pa
from pyspark import TaskContext

from recsys.config import Settings
from recsys.contracts import BATCH, GENERATION, ITEM, USER, WEIGHT
from recsys.model.als.blocks import Block, BlockStart
from recsys.model.als.conjugate_gradient import Work
from recsys.model.common.arrays import IntArray
from recsys.model.interactions.damping import to_learn
from recsys.model.interactions.timeline import DecayTimeline
from recsys.tables import log

if TYPE_CHECKING:
    from pyspark.core.broadcast import Broadcast

# Number of a batch, ascending in the order of the log, and place of a row within the batch.
STEP, PLACE = "step", "place"
TIME, BLOCK = "time", "block"
_BATCH_BITS = 40
WEIGHED = f"{STEP} BIGINT, {PLACE} BIGINT, {USER} STRING, {ITEM} STRING, {WEIGHT} DOUBLE, {TIME} DOUBLE"
# One row for each block; the columns of numbers are arrays as bytes.
BLOCKS = f"{BLOCK} BIGINT, lengths BINARY, others BINARY, weights BINARY, totals BINARY, popularity BINARY"
SOLVED = f"{BLOCK} BIGINT, unfinished BIGINT, solution BINARY"
_TYPES = {"lengths": np.int64, "others": np.int32, "weights": np.float32, "totals": np.float64}


def step_number(generation: Any, batch_id: Any) -> Any:
    """The number of a batch, of integers or of columns."""
    return generation * 2**_BATCH_BITS + batch_id


def weighing(settings: Settings) -> Callable[[pa.Table], pa.Table]:
    """Rows of one batch of the log to what the model learns of it (`WEIGHED`), as the stream learns it.

    Args:
        settings: The sections weights, decay and robustness.
    """

    def weigh(rows: pa.Table) -> pa.Table:
        batch, _ = to_learn(log.to_batch(log.sorted_rows(rows)), settings)
        step = step_number(rows[GENERATION][0].as_py(), rows[BATCH][0].as_py())
        columns = (
            np.full(len(batch), step),
            np.arange(len(batch)),
            pa.array(batch.user_ids, pa.string()),
            pa.array(batch.item_ids, pa.string()),
            batch.weights,
            batch.times,
        )
        return pa.table(dict(zip((STEP, PLACE, USER, ITEM, WEIGHT, TIME), columns, strict=True)))

    return weigh


def blocking(
    own: str, other: str, bounds: IntArray, history: DecayTimeline, popularity: DecayTimeline
) -> Callable[[tuple[pa.Scalar, ...], pa.Table], pa.Table]:
    """Rows of one block (`STEP`, `PLACE`, codes, `WEIGHT`, `TIME`) to a row of `BLOCKS`.

    Args:
        own, other: Columns with the codes of this side and of the other one.
        bounds: Of the blocks, see `blocks.cut`.
        history, popularity: How each of them weighs.
    """

    def make(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
        number = key[0].as_py()
        order = np.lexsort((rows[PLACE].to_numpy(), rows[STEP].to_numpy()))
        steps, codes, others, weights, times = (
            rows[name].to_numpy()[order] for name in (STEP, own, other, WEIGHT, TIME)
        )
        codes -= bounds[number]
        count = int(bounds[number + 1] - bounds[number])
        block = Block.of(codes, others, history.stored(steps, weights, times, np.float32), count)
        popular = np.zeros(count)
        np.add.at(popular, codes, popularity.stored(steps, np.maximum(weights, 0), times, np.float64))
        arrays = {name: getattr(block, name) for name in _TYPES} | {"popularity": popular}
        return pa.table({BLOCK: [number]} | {name: pa.array([array.tobytes()]) for name, array in arrays.items()})

    return make


def solving(
    work: "Broadcast[Work]", asked: "Broadcast[dict[int, BlockStart]]", scale: float, cap: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Rows of `BLOCKS` to rows of `SOLVED`.

    Args:
        work: What all rows of the half-step share.
        asked: What is asked of each block.
        scale, cap: See `Block.solve`.
    """

    def solve(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None, "this runs in a task"
        numba.set_num_threads(min(context.cpus(), numba.config.NUMBA_NUM_THREADS))
        for batch in batches:
            for row in batch.to_pylist():
                block = Block(**{name: np.frombuffer(row[name], kind) for name, kind in _TYPES.items()})
                solution, unfinished = block.solve(asked.value[row[BLOCK]], work.value, scale, cap)
                yield pa.RecordBatch.from_pydict(
                    {BLOCK: [row[BLOCK]], "unfinished": [unfinished], "solution": [solution.tobytes()]}
                )

    return solve
