"""What runs in Spark's Python workers: a version, loaded once per worker, ranks, is read, and measures lists."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from pyspark import SparkFiles
from safetensors import safe_open
from safetensors.numpy import save_file

from recsys.contracts import EXPLORED_PLACE, ITEM, PROPENSITY, RANKING, USER
from recsys.scoring.composition import Ordered, RanksCandidates, Rules, compose
from recsys.scoring.exploration import Exploration, Explored, Explorer
from recsys.scoring.figures import dissimilarities, percentiles
from recsys.scoring.similarity import Similarity, factors_of, similarity_of
from recsys.serving.arrays import Array, Lists
from recsys.serving.served import kind_of
from recsys.serving.stored import ARRAYS_FILE, FORMS

if TYPE_CHECKING:
    from pyspark.core.broadcast import Broadcast

    from recsys.serving import Ranker

Batches = Iterator[pa.RecordBatch]
InWorker = Callable[[Batches], Batches]

EXCLUDED = "excluded"
# Of the id of a list with an explored place, or of a control.
MARK = "mark"
LISTS = (
    f"{USER} STRING, items ARRAY<STRUCT<{ITEM}: STRING, score: DOUBLE>>, {RANKING} STRING, {PROPENSITY} DOUBLE, "
    f"{EXPLORED_PLACE} BIGINT, {MARK} STRING"
)
NAMES = [USER, "items", RANKING, PROPENSITY, EXPLORED_PLACE, MARK]
# One row for each listed item, and one for all lists of a task, whose item is -1.
MEASURES = (
    "item BIGINT, times BIGINT, lists BIGINT, short BIGINT, unknown BIGINT, popularity DOUBLE, dissimilarity DOUBLE, "
    "compared BIGINT"
)
ALL = -1
MEASURED = tuple(part.split()[0] for part in MEASURES.split(", "))[2:]
_ARROW = {"BIGINT": pa.int64(), "DOUBLE": pa.float64()}


class WorkerVersion:
    """A version in a worker.

    Args:
        ranker: From the code that the version carries.
    """

    def __init__(self, ranker: "Ranker") -> None:
        self.ranker, self.arrays = ranker, ranker.arrays
        self.user_ids, self.item_ids = (
            _strings(self.arrays[f"{side}_ids_bytes"], self.arrays[f"{side}_ids_offsets"]) for side in ("user", "item")
        )

    @cached_property
    def similarity(self) -> Similarity | None:
        """How it compares items."""
        return similarity_of(self.arrays)

    @cached_property
    def popularity(self) -> Array:
        """(items,) share of the catalog that an item is more popular than."""
        return percentiles(self.arrays["item_popularity"])


# The last version that this worker has loaded, by the archive that it came in.
_loaded: dict[str, WorkerVersion] = {}


def loaded(archive: str) -> WorkerVersion:
    """A version of the session. The first task of a worker loads it; the next tasks use what that one has loaded.

    Args:
        archive: Name under which the session has it.
    """
    if archive not in _loaded:
        _loaded.clear()  # Before the next one is loaded: the memory holds one.
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        artifact = SparkFiles.get(archive)
        _lay_out(artifact)
        _loaded[archive] = WorkerVersion(_ranker(artifact))
    return _loaded[archive]


def _ranker(artifact: str) -> "Ranker":
    """Made by the artifact's own code, so a version of another kind or release scores as it did originally."""
    model: Any = mlflow.pyfunc.load_model(artifact).unwrap_python_model()
    ranker: Ranker = model.ranker
    return ranker


def _lay_out(artifact: str) -> None:
    """Write the arrays as the scorers take them, once for all workers of an executor, which map the file."""
    file = Path(artifact, "artifacts", ARRAYS_FILE)
    with FileLock(f"{file}.lock"):
        with safe_open(file, framework="np") as arrays:
            compressed = FORMS in arrays.keys()  # noqa: SIM118 - it is no mapping
        if compressed:
            fresh = file.with_suffix(".fresh")
            save_file(_ranker(artifact).arrays, fresh)
            fresh.replace(file)


@dataclass(frozen=True)
class Request:
    """What is asked of a version, for all users.

    Attributes:
        k, exclude_seen: the settings.
        allowed: ids of the only items that may be in a list, as an Arrow array; None: all.
        categories: ids of items, and numbers of their categories; None: no categories.
        cap: items of one category in a list, at most.
        diversity: 0 to 1.
        exploration: None: none.
        uri: of the version, by which is drawn what is explored.
    """

    k: int
    exclude_seen: bool
    allowed: "Broadcast[pa.Array] | None" = None
    categories: "Broadcast[tuple[pa.Array, Array]] | None" = None
    cap: int | None = None
    diversity: float = 0.0
    exploration: "Broadcast[Exploration] | None" = None
    uri: str = ""

    def explorer(self, version: WorkerVersion) -> Explorer | None:
        """For the rows of a version; None without exploration, and for a version of an older release."""
        ranker = version.ranker
        if self.exploration is None or not (isinstance(ranker, RanksCandidates) and hasattr(ranker, "served_by")):
            return None
        own = replace(self.exploration.value, key=f"{self.exploration.value.key}\n{self.uri}")
        item_ids = pa.array(own.posterior.item_ids, pa.string())
        rows, lifts = rows_of(item_ids, version.item_ids), kind_of(version.arrays) == "mixture"
        allowed = None if self.allowed is None else rows_of(item_ids, self.allowed.value) >= 0
        return Explorer(own, ranker, len(version.user_ids), rows, self.exclude_seen, lifts, allowed)

    def rules(self, version: WorkerVersion) -> Rules | None:
        """For the rows of a version; None where its order is the list."""
        if self.allowed is None and self.cap is None and not self.diversity:
            return None
        allowed = None if self.allowed is None else rows_of(version.item_ids, self.allowed.value) >= 0
        categories = None
        if self.categories is not None:
            ids, numbers = self.categories.value
            categories = np.append(numbers, -1)[rows_of(version.item_ids, ids)]
        similarity = version.similarity if self.diversity else None
        return Rules(self.k, allowed, self.cap, categories, self.diversity, similarity)


def ranking(archive: str, request: Request) -> InWorker:
    """Users to `LISTS`.

    Args:
        archive: Name under which the session has the version.
        request: What is asked of it.

    Returns:
        For batches of rows of users, or of `user_id`; with a column `excluded`, these items are left out.
    """

    def rank(batches: Batches) -> Batches:
        version = loaded(archive)
        rules, explorer = request.rules(version), request.explorer(version)
        ranker = version.ranker if explorer is None else explorer.ranker
        for batch in batches:
            if batch.schema.names[0] == USER:
                ids = batch.column(0)
                rows = rows_of(ids, version.user_ids)
            else:
                rows = batch.column(0).to_numpy()
                ids = version.user_ids.take(batch.column(0)).cast(pa.string())
            ranked: Ordered
            if EXCLUDED in batch.schema.names or rules is not None:
                own = rules or Rules(request.k)
                ranked = compose(ranker, rows, request.exclude_seen, _excluded(batch, version), own)
            else:
                asked = np.full(len(rows), request.k), np.full(len(rows), request.exclude_seen)
                ranked = ranker.rank(rows, *asked)
            if explorer is None:
                lists, found = _lists(ranked, version.item_ids), _unexplored(len(rows))
            else:
                explored = explorer.of(ranked, rows, ids.to_pylist(), _excluded(batch, version))
                new = pa.array(explorer.new_ids, version.item_ids.type)
                item_ids = pa.concat_arrays([version.item_ids, new])
                lists, found = _lists(explored.lists, item_ids), _told(explored, item_ids)
            yield pa.RecordBatch.from_arrays([ids, lists, *_drawn(version, rows), *found], NAMES)

    return rank


def naming(archive: str) -> InWorker:
    """Rows of users to `user_id`."""

    def name(batches: Batches) -> Batches:
        version = loaded(archive)
        for batch in batches:
            yield pa.RecordBatch.from_arrays([version.user_ids.take(batch.column(0)).cast(pa.string())], [USER])

    return name


def reading_vectors(archive: str, key: str) -> InWorker:
    """Rows of users or items to their id and `vector`; those about which nothing is known are left out.

    Args:
        archive: Name under which the session has the version.
        key: `user_id` or `item_id`.
    """

    def read(batches: Batches) -> Batches:
        version = loaded(archive)
        names = factors_of(version.arrays)
        assert names is not None, "the driver has looked"
        ids = version.user_ids if key == USER else version.item_ids
        factors = version.arrays[names[0] if key == USER else names[1]]
        for batch in batches:
            rows = batch.column(0).to_numpy()
            rows = rows[rows < len(factors)]
            rows = rows[factors[rows].any(axis=1)]
            offsets = np.arange(len(rows) + 1) * factors.shape[1]
            vectors = pa.ListArray.from_arrays(offsets.astype(np.int32), pa.array(factors[rows].ravel(), pa.float32()))
            yield pa.RecordBatch.from_arrays([ids.take(pa.array(rows)).cast(pa.string()), vectors], [key, "vector"])

    return read


def measuring(archive: str, k: int, all_known: bool) -> InWorker:
    """`user_id` and the ids of a list to `MEASURES`.

    Args:
        archive: Name under which the session has the version that made the lists.
        k: Length of a list that is not short.
        all_known: Whether the version knows all users, so that they need not be looked up.
    """

    def measure(batches: Batches) -> Batches:
        version = loaded(archive)
        times, total = np.zeros(len(version.item_ids), dtype=np.int64), dict.fromkeys(MEASURED, 0.0)
        for batch in batches:
            own = batch.column(1)
            lengths = pc.list_value_length(own).to_numpy(zero_copy_only=False).astype(np.int64)
            items = rows_of(own.flatten(), version.item_ids)
            # The version does not know all explored items, nor those that another one has listed just now.
            among, known = items >= 0, items[items >= 0]
            owners = np.repeat(np.arange(len(lengths)), lengths)[among]
            compared = np.bincount(owners, minlength=len(lengths))
            times += np.bincount(known, minlength=len(times))
            total["lists"] += len(batch)
            total["short"] += int((lengths < k).sum())
            if not all_known:
                total["unknown"] += int((rows_of(batch.column(0), version.user_ids) < 0).sum())
            total["popularity"] += float(version.popularity[known].sum())
            if version.similarity is not None and len(known):
                table = np.zeros((len(lengths), compared.max()), dtype=np.int64)
                table[np.arange(compared.max()) < compared[:, None]] = known
                found = dissimilarities(version.similarity, table, compared)
                total["dissimilarity"] += float(found.sum())
                total["compared"] += len(found)
        listed = np.flatnonzero(times)
        columns = [np.append(listed, ALL), np.append(times[listed], times.sum())]
        columns += [np.append(np.zeros(len(listed)), value) for value in total.values()]
        schema = pa.schema([(name, _ARROW[kind]) for name, kind in (part.split() for part in MEASURES.split(", "))])
        yield pa.RecordBatch.from_arrays(
            [pa.array(column).cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
        )

    return measure


def rows_of(ids: pa.Array, known: pa.Array) -> Array:
    """(n,) int64 rows of ids among the known ones, -1 for others and for null."""
    found = pc.index_in(ids.cast(pa.large_string()), value_set=known.cast(pa.large_string())).fill_null(-1)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int64)


def _drawn(version: WorkerVersion, rows: Array) -> list[pa.Array]:
    """Name and chance of the ranking that serves each user by row, (n,).

    Both are null for a version of an older release, and the chance is for an unknown user: there is one draw for all of
    them.
    """
    if not hasattr(version.ranker, "served_by"):
        return [pa.nulls(len(rows), pa.string()), pa.nulls(len(rows), pa.float64())]
    found = version.ranker.served_by(rows)
    return [pa.array(found.names, pa.string()).take(pa.array(found.choices)), pa.array(found.chances, mask=rows < 0)]


def _unexplored(count: int) -> list[pa.Array]:
    return [pa.nulls(count, pa.int64()), pa.array([""] * count, pa.string())]


def _told(explored: Explored, item_ids: pa.Array) -> list[pa.Array]:
    """The explored place of each list, from 1, and the end of its id."""
    there = item_ids.take(pa.array(explored.there, mask=explored.there < 0)).fill_null("")
    places = pa.array(np.full(len(explored.marks), explored.place + 1), mask=explored.marks != 1)
    return [places, pa.array(explored.ends(there.to_pylist()), pa.string())]


def _excluded(batch: pa.RecordBatch, version: WorkerVersion) -> Lists:
    """Known items that the users of a batch shall not get."""
    if EXCLUDED not in batch.schema.names:
        return Lists.empty(len(batch))
    column = batch.column(EXCLUDED)
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    items = rows_of(column.flatten(), version.item_ids)
    owners = np.repeat(np.arange(len(batch)), lengths)[items >= 0]
    return Lists.of(np.bincount(owners, minlength=len(batch)), items[items >= 0])


def _strings(text: Array, offsets: Array) -> pa.Array:
    """Packed ids as an Arrow array, without a copy and without a Python object per id."""
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))


def _lists(ranked: Ordered, item_ids: pa.Array) -> pa.Array:
    """Rankings as an Arrow array of type list<struct<item_id, score>>."""
    pairs = pa.StructArray.from_arrays(
        [item_ids.take(pa.array(ranked.items)).cast(pa.string()), pa.array(ranked.scores, pa.float64())],
        [ITEM, "score"],
    )
    return pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(ranked.lengths)]).astype(np.int32), pairs)
