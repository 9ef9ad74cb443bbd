"""Who competes: the champion and the challenger on trial, as the registry says now.

After every batch the stream looks at the aliases, so that a person may move them at any time. It records verdicts as
tags, and moves an alias last. A verdict is in the ledger before MLflow hears of it, so an outage only delays it.
"""

import logging
from dataclasses import dataclass

from mlflow.tracking import MlflowClient

from recsys.config import Settings
from recsys.contracts import StepId, TrialKey
from recsys.errors import RegistryDownError, RegistryError
from recsys.model.evaluation.gate import EXPIRED, PASSED, REJECTED, GateResult
from recsys.model.evaluation.trial import CHALLENGER, CHAMPION, decision
from recsys.registry import artifacts, decisions, versions
from recsys.registry.decisions import RegistryDecision, Standing, promoted_by, replaced_by
from recsys.registry.versions import AGAINST, REASONS, VERDICT, WATCHED, Version, gate_tags
from recsys.serving import Served
from recsys.stream.trials import Trials

logger = logging.getLogger(__name__)

FIRST = "first"
_STREAM = "stream"


@dataclass
class _Entrant:
    """A version that competes; what it serves is loaded from the registry when it is first measured."""

    version: Version
    served: Served | None = None


class Contest:
    """The versions that the stream measures beside its live model.

    Args:
        settings: all settings.
        trials: the trial of the stream.
    """

    def __init__(self, settings: Settings, trials: Trials) -> None:
        self._settings = settings
        self._trials = trials
        self._entrants: dict[str, _Entrant] = {}
        self._standing = Standing({}, None)
        self._first: str | None = None
        # The version that was promoted here last, and what was said of which version.
        self._promoted = ""
        self._told: set[tuple[str, str]] = set()
        # Watches that cannot be: the version before the champion is gone or damaged.
        self._unwatchable: set[TrialKey] = set()

    @property
    def champion(self) -> Version | None:
        """The champion; None if there is none that this release has registered."""
        return self._named(CHAMPION)

    @property
    def challenger(self) -> Version | None:
        """The version that was registered last; None if there is none."""
        return self._named(CHALLENGER)

    @property
    def on_trial(self) -> Version | None:
        """The challenger, if neither the gate nor whoever replaced it as the champion has judged it yet."""
        challenger = self.challenger
        if challenger is None or challenger == self.champion:
            return None
        return None if VERDICT in challenger.tags or replaced_by(challenger) is not None else challenger

    @property
    def lacks_version(self) -> bool:
        """Whether there is no champion, nor a challenger that could be or that the gate or a person keeps from it."""
        challenger = self.challenger
        return self.champion is None and (challenger is None or challenger.tags.get(VERDICT) == EXPIRED)

    @property
    def decided(self) -> bool:
        """Whether a trial or a watch has ended, and the registry does not have it."""
        trial, watch = self._trials.running, self._trials.watching
        ended = watch is not None and watch.result.decided and (watch.result.verdict == PASSED or self._may_move)
        return ended or (trial is not None and trial.result.decided)

    @property
    def measured(self) -> dict[str, tuple[Version, Served]]:
        """The versions and what they serve, by the names under which they are measured.

        Where a look was interrupted, the trial may still be one beside an earlier champion: it has no place here.
        """
        champion = self.champion
        against = None if champion is None else champion.version
        numbers = {FIRST: self._first, CHAMPION: against}
        for trial in (self._trials.running, self._trials.watching):
            if trial is not None and not trial.result.decided and trial.key.against == against:
                numbers[trial.measured_as] = trial.key.version
        entrants = {name: self._entrants.get(number) for name, number in numbers.items() if number is not None}
        return {
            name: (entrant.version, entrant.served)
            for name, entrant in entrants.items()
            if entrant is not None and entrant.served is not None
        }

    def served_by(self, uri: str) -> Served | None:
        """What a version serves, by its URI; None if it has not been loaded."""
        return next((one.served for one in self._entrants.values() if one.version.uri == uri), None)

    def enter(self, version: Version, served: Served | None) -> None:
        """Take a version that was registered, and what it serves if that is loaded, before the next look."""
        self._entrants[version.version] = _Entrant(version, served)

    def look(self, client: MlflowClient, first: Version | None) -> None:
        """Look who is what now, load what is measured, and let the trial run. Calling again is safe.

        Args:
            client: from `connect`.
            first: the first version of the generation.

        Raises:
            RegistryError: MLflow failed.
        """
        name, before = self._settings.mlflow.model_name, self._standing
        found = decisions.standing(client, name)
        numbers = {found.aliases[alias] for alias in (CHAMPION, CHALLENGER) if alias in found.aliases}
        # The champion so far, too: the one that replaces it is watched beside it.
        numbers |= {version.version for version in (first, self.champion) if version is not None}
        watch = self._trials.watching
        numbers |= {watch.key.version} if watch is not None and not watch.result.decided else set()
        if found.aliases != before.aliases or not numbers <= self._entrants.keys():
            # Whoever moved an alias has also tagged versions.
            there = {number: versions.find(client, name, number) for number in sorted(numbers)}
            self._entrants = {
                number: _Entrant(version, self._entrants[number].served if number in self._entrants else None)
                for number, version in there.items()
                if version is not None
            }
        self._tell_of_moves(before, found)
        self._standing, self._first = found, None if first is None else first.version
        for version in (first, self.champion):
            if version is not None:
                self._load(version.version)
        self._challenge(client)
        self._watch(client)

    def settle(self, client: MlflowClient, at_the_end: bool = False) -> bool:
        """Record the verdict of a trial that has ended, and move the alias if that is due and allowed.

        Args:
            client: from `connect`.
            at_the_end: whether a stream without a champion ends, so that the gate decides with what there is.

        Returns:
            Whether the alias `champion` was moved.

        Raises:
            RegistryError: MLflow failed. Calling again is safe.
        """
        trial = self._trials.running
        if trial is not None:
            result = trial.end() if at_the_end else trial.result
            if result.decided:
                self._record(client, trial.key, result)
        return self._end_watch(client) or self._promote(client)

    def expire(self, client: MlflowClient, step: StepId) -> None:
        """End the trial that runs, because the version of a step takes the place of the challenger.

        Raises:
            RegistryError: MLflow failed. Calling again is safe.
        """
        trial = self._trials.running
        if trial is None or self._entrants[trial.key.version].version.step == step:
            return
        why = f"the version of batch {step} took its place"
        self._record(client, trial.key, GateResult(EXPIRED, (why,), trial.result.figures))

    def _named(self, alias: str) -> Version | None:
        """The version with an alias, if this release has registered it: it might read other arrays wrongly."""
        entrant = self._entrants.get(self._standing.aliases.get(alias, ""))
        return None if entrant is None or entrant.version.step is None else entrant.version

    def _challenge(self, client: MlflowClient) -> None:
        """Let the trial of the challenger run, if the gate has not judged it yet."""
        challenger = self.on_trial
        if challenger is None or challenger.step is None:
            self._trials.end()
            return
        against = None if self.champion is None else self.champion.version
        key = TrialKey(challenger.name, challenger.version, against)
        try:
            self._load(challenger.version)
        except RegistryDownError:
            raise
        except RegistryError as error:
            self._record(client, key, GateResult(REJECTED, (str(error),)))
            return
        self._trials.run(key, challenger.step)

    def _watch(self, client: MlflowClient) -> None:
        """Watch a champion that the stream has promoted beside what it replaced, for its first batches."""
        champion = self.champion
        before = None if champion is None else _watched_beside(champion)
        if champion is None or champion.step is None or before is None or not self._settings.gate.watch_batches:
            self._trials.look_away()
            return
        key = TrialKey(champion.name, before, champion.version)
        if key in self._unwatchable:
            self._trials.look_away()
            return
        self._trials.watch(key, champion.step)
        watch = self._trials.watching
        if watch is not None and not watch.result.decided and not self._can_load(client, key):
            self._trials.look_away()

    def _can_load(self, client: MlflowClient, key: TrialKey) -> bool:
        """Load the version before a champion; returns False, after one warning, if it is gone or damaged."""
        try:
            if key.version not in self._entrants:
                found = versions.resolve(client, f"models:/{key.model_name}/{key.version}")
                self._entrants[key.version] = _Entrant(found)
            self._load(key.version)
        except RegistryDownError:
            raise
        except RegistryError as error:
            logger.warning("champion %s is not watched beside version %s: %s", key.against, key.version, error)
            self._unwatchable.add(key)
            return False
        return True

    def _end_watch(self, client: MlflowClient) -> bool:
        """Note that a champion holds its own, or go back from one that has fallen behind; returns whether it went back.

        Going back is due only where no person has a say in it: none holds the promotions, and none has chosen the
        champion since the stream has.
        """
        watch, champion = self._trials.watching, self.champion
        if watch is None or champion is None or not watch.result.decided or champion.version != watch.key.against:
            return False
        if watch.result.verdict == PASSED:
            self._mark_watched(client, champion, PASSED)
            return False
        if not self._may_move:
            self._tell_why(champion, f"falls behind version {watch.key.version}, and is not rolled back")
            return False
        # Whoever confirms a champion moves no alias, so this may be the first look at its tags.
        now = versions.resolve(client, champion.uri)
        self._entrants[champion.version].version = now
        if _watched_beside(now) != watch.key.version or not self._can_load(client, watch.key):
            self._trials.look_away()
            return False
        why = RegistryDecision(_STREAM, watch.decision())
        decisions.rollback(client, champion.name, watch.key.version, why)
        self._promoted = watch.key.version
        self._mark_watched(client, now, REJECTED)
        logger.warning("%s: version %s takes its place again", watch.decision(), watch.key.version)
        return True

    def _mark_watched(self, client: MlflowClient, champion: Version, how: str) -> None:
        """Note how the watch over a champion has ended. It never begins again, whatever the settings or the aliases."""
        self._entrants[champion.version].version = versions.tag(client, champion, {WATCHED: how})
        self._trials.look_away()

    def _load(self, number: str) -> None:
        entrant = self._entrants[number]
        if entrant.served is None:
            entrant.served = artifacts.load_served(entrant.version.uri, entrant.version.digest)

    def _tell_of_moves(self, before: Standing, found: Standing) -> None:
        """Say that somebody else has chosen a champion, or that this release has not registered it."""
        name, number = self._settings.mlflow.model_name, found.aliases.get(CHAMPION)
        if number is None or number in (before.aliases.get(CHAMPION), self._promoted):
            return
        if number in self._entrants and self._entrants[number].version.step is None:
            logger.warning(
                "models:/%s/%s is champion, but this release did not register it (it has no tag 'generation') and "
                "cannot compare with it: the first version that passes the gate takes its place; to keep it, set "
                "mlflow.model_name to another name",
                name,
                number,
            )
        elif before.aliases:
            logger.warning(
                "models:/%s/%s has been made champion elsewhere; it is compared with from now on", name, number
            )

    def _record(self, client: MlflowClient, key: TrialKey, result: GateResult) -> None:
        """Tag a challenger with its verdict."""
        entrant = self._entrants[key.version]
        tags = gate_tags(result.verdict, key.against, result.reasons, result.figures)
        entrant.version = versions.tag(client, entrant.version, tags)
        self._trials.end()
        logger.log(logging.INFO if result.verdict == PASSED else logging.WARNING, "%s", decision(key, result))

    def _promote(self, client: MlflowClient) -> bool:
        """Promote a challenger that has passed beside the present champion, unless a person has a say in it."""
        challenger, champion = self.challenger, self.champion
        if challenger is None or challenger == champion or challenger.tags.get(VERDICT) != PASSED:
            return False
        # Whoever has replaced it as the champion had a reason that the gate does not know.
        if replaced_by(challenger) is not None:
            return False
        if challenger.tags.get(AGAINST) != (None if champion is None else champion.version):
            return False
        if not self._may_move:
            self._tell_why(challenger, "has passed the gate, and waits for jobs/registry.py")
            return False
        if champion is not None and self._trials.watching is not None:
            self._mark_watched(client, champion, EXPIRED)
        decisions.promote(client, challenger, RegistryDecision(_STREAM, challenger.tags[REASONS]))
        self._promoted = challenger.version
        return True

    @property
    def _may_move(self) -> bool:
        """Whether the stream may move the alias of the champion."""
        return self._standing.hold is None and self._settings.gate.approval == "automatic"

    def _tell_why(self, version: Version, what: str) -> None:
        """Say once for each version and case why the stream leaves the alias where it is."""
        if (version.version, what) not in self._told:
            hold = self._standing.hold
            why = "gate.approval is manual" if hold is None else f"promotions are on hold, by {hold.by}: {hold.reason}"
            logger.warning("%s %s: %s", version.uri, what, why)
        self._told.add((version.version, what))


def _watched_beside(champion: Version) -> str | None:
    """The version beside which a champion is watched; None if a person chose it, or the watch has ended.

    It is not the alias `previous`, which may not have moved yet.
    """
    by_stream = promoted_by(champion) == _STREAM
    return champion.tags.get(AGAINST) if by_stream and WATCHED not in champion.tags else None
