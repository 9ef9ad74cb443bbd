"""What hostile records do to the stream: does it stop, does one get lost, and what do they cost.

    python -m bench.reliability.fuzz --records 1000000

As many records as given, mutated from real-looking ones (`mutations.MUTATIONS`), are written as JSON lines and read by
the stages of the stream that touch them: reading, rules, de-duplication, quarantine, interaction log. As many clean
records go the same way, before and in the same process. A record counts as accounted for if it is in
`interaction_log` as an event, in `quarantine` as a row, or was dropped as a duplicate; blank lines are no records. Of
the records that no mutation touched, every one has to be in the log.

Times are those of Spark's triggers: from the planning of a micro-batch to its commit.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from tqdm import tqdm

from bench.reliability import mutations
from recsys.config import Settings
from recsys.contracts import EVENTS, INTERACTION_LOG, QUARANTINE, USER, StepId
from recsys.storage import checkpoint_folder
from recsys.stream.pipeline import application_id
from recsys.tables import log, quarantine
from recsys.tables.delta import Tables
from recsys.tables.failures import first_line
from recsys.tables.session import build_session
from recsys.tables.source import computed_once, dropped_duplicates, open_events

PER_FILE, FILES_PER_BATCH = 20_000, 5
WARM_UP = 20_000
Records = Callable[[range], Iterator[tuple[str, bytes]]]


@dataclass(frozen=True)
class Written:
    """What the files of a stream hold: records, blank lines, and records that no mutation touched."""

    records: int
    blank: int
    untouched: int


@dataclass(frozen=True)
class Fate:
    """What became of the records of a stream.

    Attributes:
        crash: first line of what ended the stream early, or None.
        events: in the log; quarantined: rows; duplicates: dropped.
        untouched: events in the log of the records that no mutation touched.
        reasons: rows of the quarantine by reason.
        seconds: of all triggers.
    """

    crash: str | None
    events: int
    quarantined: int
    duplicates: int
    untouched: int
    reasons: dict[str, int]
    seconds: float

    def unaccounted(self, written: Written) -> int:
        """Records that are nowhere or twice, and untouched ones that are not in the log."""
        found = self.events + self.quarantined + self.duplicates
        return abs(written.records - found) + abs(written.untouched - self.untouched)


def main() -> None:
    """Run the bench and print its figures."""
    parser = argparse.ArgumentParser(description="Hostile records through the stream, beside as many clean ones.")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    clean, hostile = (partial(draw, seed=given.seed) for draw in (mutations.clean, mutations.hostile))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        spark = build_session(fuzz_settings(root / "warm-up"))
        run(spark, root / "warm-up", hostile, min(WARM_UP, given.records))
        undisturbed, before = run(spark, root / "clean", clean, given.records)
        written, after = run(spark, root / "hostile", hostile, given.records)
    slowdown = after.seconds / before.seconds
    unaccounted = before.unaccounted(undisturbed) + after.unaccounted(written)
    crashes = [outcome.crash for outcome in (before, after) if outcome.crash is not None]
    for crash in crashes:
        print(f"the stream stopped: {crash}")
    print(f"clean  : {undisturbed.records:,} records, {undisturbed.records / before.seconds:,.0f} a second")
    print(
        f"hostile: {written.records:,} records ({written.untouched:,} untouched) and {written.blank:,} blank lines: "
        f"{after.events:,} events, {after.quarantined:,} quarantined, {after.duplicates:,} duplicates; "
        f"{written.records / after.seconds:,.0f} a second"
    )
    for reason, rows in after.reasons.items():
        print(f"  {rows:>9,} {reason}")
    print(
        f"fuzz_records={written.records} fuzz_crashes={len(crashes)} fuzz_unaccounted={unaccounted} "
        f"fuzz_slowdown={slowdown:.2f}"
    )
    sys.exit(1 if crashes or unaccounted else 0)


def fuzz_settings(root: Path, **spark: str) -> Settings:
    """Default settings for a stream of files, with types whose value is needed, multiplied or put under a logarithm."""
    weights = {
        **dict.fromkeys(mutations.KINDS, 1.0),
        "watch": {"weight": 0.3, "value": "log"},
        "rate": {"weight": 1, "value": "multiply", "min_value": -5, "max_value": 5},
    }
    return Settings.model_validate(
        {
            "source": {"path": str(root / "events"), "options": {"maxFilesPerTrigger": str(FILES_PER_BATCH)}},
            "storage": {"root": str(root / "storage")},
            "weights": weights,
            "spark": {"spark.sql.streaming.numRecentProgressUpdates": "100000", **spark},
        }
    )


def run(spark: SparkSession, root: Path, records: Records, count: int) -> tuple[Written, Fate]:
    """Write so many records and have the stream work them off.

    Returns:
        What was written, and what became of it.
    """
    settings = fuzz_settings(root)
    written = write(root / "events", records, count)
    return written, drain(spark, settings, -(-count // (PER_FILE * FILES_PER_BATCH)))


def write(folder: Path, records: Records, count: int) -> Written:
    """Write records, each with the end of a line behind it, to files that are read in the order of their names."""
    folder.mkdir(parents=True)
    lines, blank = 0, 0
    kinds: Counter[str] = Counter()
    for first in tqdm(range(0, count, PER_FILE), desc=f"writing {folder.parent.name}", unit=" file"):
        drawn = list(records(range(first, min(count, first + PER_FILE))))
        content = b"".join(line + b"\n" for _, line in drawn)
        (folder / f"{first:012d}.json").write_bytes(content)
        kinds.update(kind for kind, _ in drawn)
        counted = mutations.count_records(content)
        lines, blank = lines + counted[0], blank + counted[1]
    return Written(lines, blank, kinds[mutations.untouched.__name__])


def drain(spark: SparkSession, settings: Settings, batches: int) -> Fate:
    """Work off the source into the log and the quarantine, as the stream does, and count what is there."""
    tables = Tables(spark, settings.storage)
    tables.create_missing()
    root = Path(settings.storage.root)

    with tqdm(total=batches, desc=f"reading {root.parent.name}", unit=" batch") as bar:

        def take(batch: DataFrame, batch_id: int) -> None:
            step, app_id = StepId(0, batch_id), application_id(batch)
            with computed_once(batch):
                rows, counts = log.collect(batch, settings.weights)
                if counts.quarantined:
                    quarantine.append(tables, batch, step, app_id, counts.quarantined)
            log.append(tables, rows, step, app_id)
            bar.update()

        query = (
            open_events(spark, settings)
            .writeStream.foreachBatch(take)
            .option("checkpointLocation", str(checkpoint_folder(settings.storage.root)))
            .trigger(availableNow=True)
            .start()
        )
        crash = None
        try:
            query.awaitTermination()
        except StreamingQueryException as error:
            crash = first_line(error)
    progress = query.recentProgress
    logged, rejected = tables.read(INTERACTION_LOG), tables.read(QUARANTINE)
    return Fate(
        crash=crash,
        events=events_in(logged),
        quarantined=rejected.count(),
        duplicates=sum(map(dropped_duplicates, progress)),
        untouched=events_in(logged.filter(F.col(USER).startswith(mutations.UNTOUCHED))),
        reasons=quarantine.reasons(rejected),
        seconds=sum(one.durationMs["triggerExecution"] for one in progress if one.numInputRows) / 1000,
    )


def events_in(logged: DataFrame) -> int:
    """Events of rows of the log."""
    return int(logged.agg(F.coalesce(F.sum(EVENTS), F.lit(0))).collect()[0][0])


if __name__ == "__main__":
    main()
