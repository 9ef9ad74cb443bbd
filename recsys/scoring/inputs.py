"""The tables that settings name, or frames in their place: whom to score, and what may be in a list."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys.config.scoring import BatchScore
from recsys.contracts import ITEM, USER
from recsys.errors import ConfigError, InputError
from recsys.scoring.workers import EXCLUDED
from recsys.serving.arrays import Array
from recsys.tables.given import checked, read_given

CATEGORY = "category"
_COLUMNS: dict[str, Sequence[str]] = {
    "users": (USER,),
    "allowed_items": (ITEM,),
    "excluded_items": (USER, ITEM),
    "categories": (ITEM, CATEGORY),
    "explored_items": (ITEM,),
}


@dataclass(frozen=True)
class Inputs:
    """Frames for batch scoring; ids are text or whole numbers.

    Attributes:
        users: `user_id`, whom to score; None: every user that the version knows.
        allowed_items: `item_id`, the only items that lists may hold; None: all.
        excluded_items: `user_id`, `item_id`: items that single users shall not get.
        categories: `item_id`, `category`, for `batch_score.category_cap`.
        explored_items: `item_id`, for `batch_score.exploration`.
    """

    users: DataFrame | None = None
    allowed_items: DataFrame | None = None
    excluded_items: DataFrame | None = None
    categories: DataFrame | None = None
    explored_items: DataFrame | None = None

    def completed(self, spark: SparkSession, settings: BatchScore) -> "Inputs":
        """With what the settings name where there is no frame; everything checked, and ids as text.

        Raises:
            InputError: a table is not there, or lacks a column; the message names the setting.
            ConfigError: there are categories without a cap, or explored items without a chance, or the other way
                around.
            OutsideDownError: the storage does not answer.
        """
        found: dict[str, DataFrame] = {}
        for name in (field.name for field in fields(self)):
            key, frame, place = f"batch_score.{name}", getattr(self, name), getattr(settings, name)
            if frame is not None:
                found[name] = checked(key, frame, _COLUMNS[name])
            elif place is not None:
                found[name] = read_given(spark, key, place, _COLUMNS[name])
        if settings.category_cap is not None and "categories" not in found:
            raise ConfigError("setting 'batch_score.category_cap': set batch_score.categories, too")
        if settings.category_cap is None and "categories" in found:
            raise ConfigError("setting 'batch_score.categories': set batch_score.category_cap, too")
        if settings.exploration and "explored_items" not in found:
            raise ConfigError("setting 'batch_score.exploration': set batch_score.explored_items, too")
        if not settings.exploration and "explored_items" in found:
            raise ConfigError("setting 'batch_score.explored_items': set batch_score.exploration, too")
        return replace(self, **found)

    def without(self, pairs: DataFrame) -> "Inputs":
        """With more items, `user_id` and `item_id`, that single users shall not get."""
        named = self.excluded_items
        return replace(self, excluded_items=pairs if named is None else named.select(USER, ITEM).union(pairs))

    def allowed_ids(self) -> pa.Array | None:
        """Ids of the allowed items, on the driver: the catalog fits it."""
        return None if self.allowed_items is None else _column(_without_null(self.allowed_items, ITEM).distinct(), ITEM)

    def explored_ids(self) -> list[str]:
        """Ids of the explored items, on the driver, in order; none where nothing is explored."""
        if self.explored_items is None:
            return []
        return sorted(_column(_without_null(self.explored_items, ITEM).distinct(), ITEM).to_pylist())

    def category_numbers(self) -> tuple[pa.Array, Array] | None:
        """Ids of the items that have a category, and the number of it.

        Raises:
            InputError: an item has several categories.
        """
        if self.categories is None:
            return None
        found = _without_null(self.categories, ITEM, CATEGORY).distinct().toArrow()
        ids = found.column(ITEM).combine_chunks()
        several = len(ids) - len(ids.unique())
        if several:
            raise InputError(
                f"setting 'batch_score.categories': {several:,} more rows than items; give each item one category"
            )
        numbers = found.column(CATEGORY).combine_chunks().dictionary_encode().indices
        return ids, np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.int64)

    def excluded_lists(self) -> DataFrame | None:
        """One row per user: `user_id`, `excluded`, an array of items."""
        if self.excluded_items is None:
            return None
        pairs = _without_null(self.excluded_items, USER, ITEM)
        return pairs.groupBy(USER).agg(F.collect_set(ITEM).alias(EXCLUDED))


def _without_null(frame: DataFrame, *columns: str) -> DataFrame:
    """Rows in which all columns have a value; others say nothing."""
    return frame.dropna(subset=list(columns))


def _column(frame: DataFrame, name: str) -> pa.Array:
    found = frame.toArrow().column(name)
    return pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], pa.string())
