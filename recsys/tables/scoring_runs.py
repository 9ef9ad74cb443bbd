"""The table `scoring_runs`: what each run of batch scoring did, and figures about its lists."""

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import uuid4

import pyarrow as pa

from recsys.contracts import SCORING_RUNS
from recsys.tables.delta import Tables


@dataclass(frozen=True)
class ScoringRun:
    """A run.

    Attributes:
        scored_at: when (UTC), as in the rows of its lists.
        model_name, model_version: the version that made the lists.
        users: users that were scored.
        unknown_users: of those, how many the version does not know.
        users_without_id: rows of `batch_score.users` that were passed over because they name nobody.
        changed: users who have another list than before.
        removed: users who have none any more.
        short_lists: lists with fewer than `recommend.k` items.
        seconds: wall time from the download of the version to the commit of the lists.
        coverage, gini, popularity_bias, diversity: see `scoring.figures.ListFigures`.
        arm: of the experiment; None where there is none.
    """

    scored_at: datetime
    model_name: str
    model_version: str
    users: int
    unknown_users: int
    users_without_id: int
    changed: int
    removed: int
    short_lists: int
    seconds: float
    coverage: float | None
    gini: float | None
    popularity_bias: float | None
    diversity: float | None
    arm: str | None = None


_COLUMNS = pa.schema(
    [
        ("scored_at", pa.timestamp("us", "UTC")),
        *((name, pa.string()) for name in ("model_name", "model_version")),
        *(
            (name, pa.int64())
            for name in ("users", "unknown_users", "users_without_id", "changed", "removed", "short_lists")
        ),
        *((name, pa.float64()) for name in ("seconds", "coverage", "gini", "popularity_bias", "diversity")),
        ("arm", pa.string()),
    ]
)


def append(tables: Tables, run: ScoringRun) -> None:
    """Append a run; one that is repeated is another run."""
    tables.append(SCORING_RUNS, pa.Table.from_pylist([asdict(run)], _COLUMNS), f"recsys:scoring:{uuid4()}", 1)


def read(tables: Tables) -> list[ScoringRun]:
    """All runs, in order of time and arm."""
    there = tables.columns(SCORING_RUNS)
    # A table that an earlier release has made lacks the last ones until the next run.
    rows = tables.rows(SCORING_RUNS, [name for name in _COLUMNS.names if name in there]).to_pylist()
    return sorted((ScoringRun(**row) for row in rows), key=lambda run: (run.scored_at, run.arm or ""))
