"""The table `item_contents`: vectors of items, as the batches brought them to the model.

The catalog of items lies outside the log and changes. What the model is told of it is written down here before the
batch is logged, so that the same log gives the same model again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.contracts import (
    BATCH,
    CONTENT_SPACE,
    CONTENT_VECTOR,
    GENERATION,
    ITEM,
    ITEM_CONTENTS,
    Contents,
    InteractionBatch,
    StepId,
)
from recsys.tables.conditions import Conditions, between, of_step
from recsys.tables.delta import Tables

_COLUMNS = pa.schema(
    [
        (GENERATION, pa.int64()),
        (BATCH, pa.int64()),
        (ITEM, pa.large_string()),
        (CONTENT_SPACE, pa.string()),
        (CONTENT_VECTOR, pa.large_binary()),
    ]
)
_IN_ORDER = [(column, "ascending") for column in (GENERATION, BATCH, ITEM)]


def append(tables: Tables, contents: Contents, step: StepId, app_id: str, txn_version: int, space: str) -> Contents:
    """Append the vectors that a batch brings once, and return those that the table has of it.

    After a crash these are the ones written before it, whatever the catalog says by now.

    Args:
        tables: The tables.
        contents: The vectors; none are not written.
        step: Step of the batch.
        app_id: Identifies the writer; the same after every restart.
        txn_version: Number of the write; it increases from commit to commit.
        space: What the vectors were made with, see `Items.space`.
    """
    count = len(contents.item_ids)
    if count:
        constants = {GENERATION: step.generation, BATCH: step.batch_id, CONTENT_SPACE: space}
        columns = {
            name: pa.repeat(pa.scalar(value, _COLUMNS.field(name).type), count) for name, value in constants.items()
        }
        columns[ITEM] = pa.array(contents.item_ids, pa.large_string())
        columns[CONTENT_VECTOR] = pa.array([row.tobytes() for row in contents.vectors], pa.large_binary())
        rows = pa.table([columns[name] for name in _COLUMNS.names], _COLUMNS).sort_by(_IN_ORDER)
        tables.append(ITEM_CONTENTS, rows, app_id, txn_version)
    return of_batch(tables, step, space)


def of_batch(tables: Tables, step: StepId, space: str) -> Contents:
    """The vectors that a batch brought, in the order of the items' ids."""
    return _contents(_rows(tables, of_step(step), space))


def joined(
    tables: Tables, batches: Iterable[tuple[StepId, InteractionBatch]], after: StepId, through: StepId, space: str
) -> Iterator[tuple[StepId, InteractionBatch]]:
    """Batches of the log after a step, through another one, each with the vectors that it brought."""
    rows = _rows(tables, between(after, through), space).sort_by(_IN_ORDER)
    generations, numbers = rows[GENERATION].to_numpy(), rows[BATCH].to_numpy()
    starts = np.flatnonzero(np.diff(generations, prepend=-1) | np.diff(numbers, prepend=-2))
    ends = [*starts[1:].tolist(), len(rows)]
    places = {
        StepId(int(generations[start]), int(numbers[start])): (start, end - start)
        for start, end in zip(starts.tolist(), ends, strict=True)
    }
    for step, batch in batches:
        if step in places:
            batch = replace(batch, contents=_contents(rows.slice(*places[step])))
        yield step, batch


def _rows(tables: Tables, where: Conditions, space: str) -> pa.Table:
    rows = tables.rows(ITEM_CONTENTS, _COLUMNS.names, where).cast(_COLUMNS)
    return rows.filter(pc.equal(rows[CONTENT_SPACE], space))


def _contents(rows: pa.Table) -> Contents:
    """The vectors of the rows of one batch."""
    if not len(rows):
        return Contents()
    rows = rows.sort_by(_IN_ORDER)
    vectors = np.frombuffer(b"".join(rows[CONTENT_VECTOR].to_pylist()), np.int8)
    return Contents(rows[ITEM].to_pylist(), vectors.reshape(len(rows), -1))
