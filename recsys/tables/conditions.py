"""Conditions on the numbers of a row, written once for Spark and for Arrow."""

from collections.abc import Sequence
from functools import reduce
from operator import and_, eq, ge, gt, le, lt, or_
from typing import Any, cast

import pyarrow.dataset as ds
from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys.contracts import BATCH, GENERATION, StepId

# Any of these rows, each of which says what must hold together: (column, operator, number).
Conditions = Sequence[Sequence[tuple[str, str, int]]]

_OPERATORS = {"==": eq, "<": lt, "<=": le, ">": gt, ">=": ge}


def of_generation(generation: int) -> Conditions:
    """Rows of a generation."""
    return [[(GENERATION, "==", generation)]]


def of_step(step: StepId) -> Conditions:
    """Rows of a batch."""
    return [[(GENERATION, "==", step.generation), (BATCH, "==", step.batch_id)]]


def between(after: StepId | None, through: StepId | None) -> Conditions:
    """Rows of the batches after a step, through another one; None: without that bound."""
    lower: Conditions = [[]]
    if after is not None:
        same = (GENERATION, "==", after.generation)
        lower = [[(GENERATION, ">", after.generation)], [same, (BATCH, ">", after.batch_id)]]
    upper: Conditions = [[]]
    if through is not None:
        same = (GENERATION, "==", through.generation)
        upper = [[(GENERATION, "<", through.generation)], [same, (BATCH, "<=", through.batch_id)]]
    return [[*one, *other] for one in lower for other in upper]


def to_column(conditions: Conditions) -> Column:
    """The conditions for a Spark frame."""
    return cast(Column, _combined(conditions, F.col, F.lit(True)))


def to_expression(conditions: Conditions) -> ds.Expression:
    """The conditions for an Arrow dataset."""
    return cast(ds.Expression, _combined(conditions, ds.field, ds.scalar(True)))


def _combined(conditions: Conditions, column: Any, always: Any) -> Any:
    alternatives = (
        reduce(and_, (_OPERATORS[operator](column(name), number) for name, operator, number in together), always)
        for together in conditions
    )
    return reduce(or_, alternatives)
