"""Batch scoring: a version recommends items to every user it knows, or to given ones, in one commit."""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys.config import Settings
from recsys.config.experiment import Experiment
from recsys.contracts import RECOMMENDATIONS, USER
from recsys.errors import ConfigError
from recsys.experiment import DIGITS, ends
from recsys.registry import versions
from recsys.registry.versions import Version
from recsys.scoring.distributed import DistributedVersion, request_of
from recsys.scoring.inputs import Inputs
from recsys.tables import recommendations, scoring_runs
from recsys.tables.delta import Tables
from recsys.tables.scoring_runs import ScoringRun


@dataclass(frozen=True)
class Scored:
    """Result of batch scoring.

    Attributes:
        version: the version that made the recommendations.
        run: what was done, and figures about the lists; a row of `scoring_runs`.
        vectors: vectors that were written, by table.
    """

    version: Version
    run: ScoringRun
    vectors: dict[str, int]


def chosen_version(settings: Settings, model: str | None = None) -> Version:
    """The version of a URI; without one, that which `recommend.model` names, or the champion.

    An alias is resolved here, once, so that every row names the version that made it.

    Raises:
        RegistryError: there is no such version, or MLflow failed.
        ConfigError: `recommend.model` is not a model's URI.
    """
    return versions.chosen(settings, versions.scored_uri(settings, model))


def score(tables: Tables, version: Version, settings: Settings, inputs: Inputs | None = None) -> Scored:
    """Make the table `recommendations` hold the lists of one version; rows of lists that are the same stay.

    A row about the run is added to `scoring_runs`.

    Args:
        tables: where the lists are written; the executors of their session do the work.
        version: from `chosen_version`.
        settings: `recommend.*` and `batch_score.*`.
        inputs: frames that take the place of tables that the settings name. If there are `users`, the lists of all
            other users stay as they are.

    Raises:
        RegistryError: MLflow failed.
        InputError: a table that a setting names is not there, or cannot be used. Nothing was written.
        ConfigError: settings contradict one another, or ask for what the version does not have. Nothing was written.
    """
    start = time.perf_counter()
    inputs = (inputs or Inputs()).completed(tables.spark, settings.batch_score)
    scorer = DistributedVersion.of(tables, version, settings)
    audience = scorer.audience(inputs)
    scored_at = datetime.now(UTC)
    lists = scorer.lists(audience, request_of(tables, inputs, settings, scored_at), scored_at)
    synced = recommendations.sync(tables, lists, others_stay=inputs.users is not None)
    run = scorer.run(audience, scored_at, time.perf_counter() - start)
    run = replace(run, changed=synced.written, removed=synced.removed)
    scoring_runs.append(tables, run)
    return Scored(version, run, scorer.vectors() if settings.batch_score.vectors else {})


def score_arms(tables: Tables, settings: Settings, inputs: Inputs | None = None) -> dict[str, Scored]:
    """The same in an experiment: each user's list is that of the version of their arm, see `experiment.arms_of`.

    All lists are written in one commit. A row is added to `scoring_runs` for every arm that serves somebody.

    Args:
        tables: As for `score`.
        settings: `experiment.*`, too.
        inputs: As for `score`.

    Returns:
        What was done, by arm.

    Raises:
        RegistryError, InputError, ConfigError: As for `score` and `chosen_version`.
    """
    start, experiment = time.perf_counter(), settings.experiment
    if settings.batch_score.vectors:
        raise ConfigError("setting 'batch_score.vectors': vectors are of one version; set experiment.arms to {}")
    inputs = (inputs or Inputs()).completed(tables.spark, settings.batch_score)
    serving = {name: arm for name, arm in experiment.arms.items() if arm.share}
    scorers = {
        name: DistributedVersion.of(tables, chosen_version(settings, arm.model), settings)
        for name, arm in serving.items()
    }
    users, others_stay, without_id = inputs.users, inputs.users is not None, 0
    if users is not None:
        without_id = users.filter(F.isnull(USER)).count()
    else:
        # A user whom only another arm's version knows gets popular items.
        users = reduce(DataFrame.union, (scorer.users() for scorer in scorers.values())).distinct()
    scored_at = datetime.now(UTC)
    request = request_of(tables, inputs, settings, scored_at)
    audiences = {
        name: scorer.audience(replace(inputs, users=users.filter(_in_arm(experiment, name))))
        for name, scorer in scorers.items()
    }
    parts = (scorer.lists(audiences[name], request, scored_at) for name, scorer in scorers.items())
    synced = recommendations.sync(tables, reduce(DataFrame.union, parts), others_stay)
    seconds, found = time.perf_counter() - start, dict[str, Scored]()
    written = tables.read(RECOMMENDATIONS).filter(F.col("scored_at") == F.lit(scored_at))
    for name, scorer in scorers.items():
        run = scorer.run(audiences[name], scored_at, seconds)
        changed = written.filter(_in_arm(experiment, name)).count()
        run = replace(run, arm=name, changed=changed)
        if not found:  # Whose list is gone, and who has no id, belongs to no arm in particular.
            run = replace(run, removed=synced.removed, users_without_id=without_id)
        scoring_runs.append(tables, run)
        found[name] = Scored(scorer.version, run, {})
    return found


def _in_arm(experiment: Experiment, arm: str) -> Column:
    """Whether a user is in an arm, as `experiment.arms_of` says it."""
    digest = F.sha2(F.concat(F.lit(f"{experiment.name}\n"), USER), 256)
    drawn = F.conv(F.substring(digest, 1, DIGITS), 16, 10).cast("double") / 16.0**DIGITS
    place, bounds = list(experiment.arms).index(arm), [0.0, *ends(experiment)]
    return (drawn >= bounds[place]) & (drawn < bounds[place + 1])
