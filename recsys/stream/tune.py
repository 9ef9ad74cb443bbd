"""Searches better model settings on the interaction log of a stream, which may go on meanwhile.

Only reads: it takes no lease and writes no table. The batches that are in the ledger when it begins are its log; what
the stream appends later changes nothing, because batches are never altered.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from recsys.catalogue import present_catalog
from recsys.config import Settings
from recsys.config.settings import nested
from recsys.contracts import INTERACTION_LOG, MODEL_UPDATES, InteractionBatch, StepId
from recsys.errors import InputError, OutsideDownError, is_outage
from recsys.model.interactions.described import with_vectors
from recsys.registry.client import connect
from recsys.registry.tuning_runs import Measured, TuningRuns
from recsys.storage import written
from recsys.stream.recovery import complete_batches
from recsys.stream.scope import Scope
from recsys.tables import ledger, log
from recsys.tables.conditions import between
from recsys.tables.delta import Tables
from recsys.tables.reading import tables_to_read
from recsys.tuning.replay import Log
from recsys.tuning.search import Tuning, TuningTrial, tune
from recsys.tuning.space import space_of

_HEAD = """\
# What `tune` chose for model.kind {kind}: NDCG@{k} {tuned:.4f} instead of {current:.4f} on {batches} batches that its
# search did not see. Give it after your own settings: --config YOURS.yaml --config {name}
"""


def tune_stream(settings: Settings, output: Path, tell: Callable[[TuningTrial], None]) -> Tuning:
    """Search on the first part of the log of a stream, compare on the rest, and write what holds there.

    The log is read as `rebuild` reads it: in ranges of about a million rows, without what `rebuild.without_users` and
    `rebuild.without_batches` leave out; also without the batches that the stream has set aside.

    Args:
        settings: All settings of the stream.
        output: The YAML file for the values that differ from the configured ones. It is written, in one step, only if
            they are better on the rest of the log by more than noise.
        tell: Is called after each trial.

    Raises:
        ConfigError: `tune.keys` names a setting that is not searched.
        InputError: the log is empty or too short, nobody could be measured in it, or the file cannot be written.
        RegistryError: MLflow does not answer at the beginning.
    """
    space = space_of(settings)
    _refuse_unwritable(output)
    tables = tables_to_read(settings)
    batches = log_of(settings, tables)
    batches.searched(settings.tune.share)
    name = f"ndcg_at_{settings.recommend.k}"
    read = {"log": tables.identity(INTERACTION_LOG), "batches": str(batches.count)}
    with TuningRuns(connect(settings), settings, {**read, "keys": ", ".join(one.key for one in space)}) as runs:

        def tried(trial: TuningTrial) -> None:
            quality = trial.quality
            measured: dict[str, Measured] = {
                name: quality.mean,
                f"batch/{name}": quality.by_batch,
                "seconds": trial.seconds,
            }
            runs.trial(trial.number, trial.values, trial.state, measured)
            tell(trial)

        tuning = tune(settings, batches, tried)
        runs.outcome(_figures(tuning, name), tuning.changed)
        if tuning.holds:
            write_settings(output, settings, tuning)
    return tuning


def log_of(settings: Settings, tables: Tables) -> Log:
    """The batches of a stream that have something to learn, as of now.

    Raises:
        InputError: there are none.
    """
    last = log.last_step(tables, name=MODEL_UPDATES) if tables.exists(MODEL_UPDATES) else None
    if last is None or not tables.exists(INTERACTION_LOG):
        raise InputError(
            f"{tables.location(INTERACTION_LOG)} has nothing to tune on: run jobs/stream_update.py or jobs/backfill.py "
            f"with the same settings first"
        )
    scope = Scope.of_settings(settings.rebuild, last.generation)
    left_out = ledger.set_aside(tables)
    counts = tables.rows_by_step(INTERACTION_LOG, between(None, last))
    steps = [step for step in counts if step not in left_out and step.batch_id not in scope.batches]

    # As a rebuild, which knows the whole catalog as it is now.
    catalog = present_catalog(settings)

    def read(count: int) -> Iterable[tuple[StepId, InteractionBatch]]:
        found = complete_batches(tables, None, steps[count - 1])
        return with_vectors(catalog, scope.of((step, batch) for step, batch in found if step not in left_out))

    return Log(len(steps), read)


def write_settings(file: Path, settings: Settings, tuning: Tuning) -> None:
    """Write the values that differ from the configured ones, as settings for `--config`.

    Raises:
        InputError: the file cannot be written.
    """
    assert tuning.unseen is not None
    current, tuned = tuning.unseen.current, tuning.unseen.tuned
    head = _HEAD.format(
        kind=settings.model.kind,
        k=settings.recommend.k,
        current=current.mean,
        tuned=tuned.mean,
        batches=len(tuned.by_batch),
        name=file.name,
    )
    try:
        with written(file) as hidden:
            hidden.write_text(head + yaml.safe_dump(nested(tuning.changed), sort_keys=True), "utf-8")
    except OSError as error:
        kind = OutsideDownError if is_outage(error) else InputError
        raise kind(f"cannot write {file}: {error.strerror or error}") from error


def _refuse_unwritable(file: Path) -> None:
    """Refuse a file that cannot be written now, not after an hour."""
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise InputError(f"cannot write {file}: name a file in a folder that exists with --output")


def _figures(tuning: Tuning, name: str) -> dict[str, Measured]:
    """What the run of the search tells."""
    figures: dict[str, Measured] = {
        f"searched/current/{name}": tuning.trials[0].quality.mean,
        f"searched/tuned/{name}": tuning.best.quality.mean,
    }
    unseen = tuning.unseen
    if unseen is None:
        return figures
    for which, quality in (("current", unseen.current), ("tuned", unseen.tuned)):
        figures |= {f"unseen/{which}/{name}": quality.mean, f"unseen/{which}/batch/{name}": quality.by_batch}
    gain = {"estimate": unseen.gain.estimate, "lower": unseen.gain.lower, "upper": unseen.gain.upper}
    return figures | {f"unseen/gain/{end}": value for end, value in gain.items()} | {"unseen/users": unseen.users}
