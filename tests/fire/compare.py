"""Compares two storages, one of them disturbed, without Spark: what was lost, what came twice, what else differs."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from safetensors.numpy import load_file

from recsys.config import Settings
from recsys.contracts import (
    EXPOSURES,
    INTERACTION_LOG,
    INTERACTIONS,
    ITEM_CONTENTS,
    MODEL_UPDATES,
    QUARANTINE,
    RECOMMENDATIONS,
    TRIALS,
)
from recsys.serving.stored import restored
from recsys.storage import snapshot_folder, table_path
from tests.stream.disturbed import registry_content

# Clock times, durations, numbers of commits and of versions, and the name of the folder.
VARIES = {"ingested_at", "duration_ms", "log_version", "scored_at", "state_uri"}


@dataclass
class Difference:
    """How a disturbed storage differs.

    Attributes:
        lost: rows that are missing; doubled: rows that are too many, in log, totals, quarantine and ledger.
        different: what else differs.
    """

    lost: int = 0
    doubled: int = 0
    different: list[str] = field(default_factory=list)

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(self.lost + other.lost, self.doubled + other.doubled, [*self.different, *other.different])


def compare(disturbed: Settings, undisturbed: Settings) -> Difference:
    """Compare tables, arrays of the last snapshot, and registry."""
    result = Difference()
    for name in (
        INTERACTION_LOG,
        INTERACTIONS,
        QUARANTINE,
        EXPOSURES,
        ITEM_CONTENTS,
        MODEL_UPDATES,
        TRIALS,
        RECOMMENDATIONS,
    ):
        found, wanted = _rows(disturbed, name), _rows(undisturbed, name)
        missing, extra = wanted - found, found - wanted
        result.lost += max(0, wanted.total() - found.total())
        result.doubled += max(0, found.total() - wanted.total())
        if missing or extra:
            first = next(iter(extra or missing))
            result.different.append(f"{name}: {missing.total()} rows missing, {extra.total()} others, such as {first}")
    files = [sorted(snapshot_folder(one.storage.root).rglob("*.safetensors"))[-1] for one in (disturbed, undisturbed)]
    if files[0].name != files[1].name:
        result.different.append(f"the last snapshot is {files[0].name}, not {files[1].name}")
    found_arrays, wanted_arrays = (restored(load_file(file)) for file in files)
    result.different += [
        f"array {key}"
        for key in wanted_arrays.keys() | found_arrays.keys()
        if not np.array_equal(found_arrays.get(key, np.empty(0)), wanted_arrays.get(key, np.empty(0)))
    ]
    registries = registry_content(disturbed), registry_content(undisturbed)
    result.different += [f"registry: {key}" for key in registries[1] if registries[0][key] != registries[1][key]]
    return result


def _rows(settings: Settings, name: str) -> Counter[str]:
    # Arrow by itself knows no deletion vectors.
    stored = QueryBuilder().register("stored", DeltaTable(table_path(settings.storage.root, name)))
    rows = pa.table(stored.execute("SELECT * FROM stored").read_all())
    # The id of a list has the time of its run.
    varies = VARIES | ({"list_id"} if name == RECOMMENDATIONS else set())
    kept = rows.drop_columns(list(varies & set(rows.column_names)))
    return Counter(repr(_timeless(row)) for row in kept.to_pylist())


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("metrics", "settings"):
        if name in row:
            row[name] = sorted((key, value) for key, value in row[name] or () if not key.endswith("seconds"))
    if "artifacts" in row:  # Digests differ, because an artifact has the id of its logged model.
        row["artifacts"] = sorted(key for key, _ in row["artifacts"] or ())
    return row
