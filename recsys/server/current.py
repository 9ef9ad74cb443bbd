"""What answers: the champion, and in an experiment the versions of its arms, replaced while requests are answered."""

import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from recsys.config import Settings
from recsys.config.experiment import Experiment
from recsys.errors import InputError, RegistryError
from recsys.experiment import arms_of
from recsys.registry import versions
from recsys.registry.served import ServedVersion
from recsys.server.figures import ServerFigures
from recsys.server.loading import Loader
from recsys.server.stored import NO_LISTS, StoredLists, StoredTable

logger = logging.getLogger(__name__)

# Of the thread that loads versions, from 0 to 19.
_NICENESS = 10
# How long the end of the process waits for a look that has begun. Loading a version takes a second or a few.
_LAST_LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Answering:
    """A version that answers.

    Attributes:
        served: the version.
        lists: those of the table that it has made.
    """

    served: ServedVersion
    lists: StoredLists

    @property
    def name(self) -> dict[str, str]:
        """What names it in an answer."""
        return {"model": self.served.version.name, "version": self.served.version.version}


@dataclass(frozen=True)
class Moment:
    """What answers a request, from its beginning to its end.

    Attributes:
        experiment: who is in which arm.
        of_arm: what answers, by arm; that of None, the champion, answers whoever and whatever is in no arm.
    """

    experiment: Experiment
    of_arm: dict[str | None, Answering]

    @property
    def champion(self) -> Answering:
        """What answers without an experiment, and requests without a user."""
        return self.of_arm[None]

    @property
    def arms(self) -> dict[str, Answering]:
        """The arms that users are in, and what answers them."""
        return {arm: answering for arm, answering in self.of_arm.items() if arm is not None}

    @property
    def of_version(self) -> dict[str, Answering]:
        """What answers, each version once, by `Version.uri`."""
        return {answering.served.version.uri: answering for answering in self.of_arm.values()}

    @property
    def stored_lists(self) -> int:
        """How many lists of the table the versions that answer have made."""
        return sum(len(answering.lists) for answering in self.of_version.values())

    def arms_of(self, user_ids: Sequence[str | None]) -> list[str | None]:
        """The arm of each user; None for one without an id, and for everybody without an experiment."""
        if not self.experiment.arms:
            return [None] * len(user_ids)
        names = list(self.experiment.arms)
        # A missing id is hashed like an empty one, and then left out.
        places = arms_of([user_id or "" for user_id in user_ids], self.experiment).tolist()
        return [None if user_id is None else names[place] for user_id, place in zip(user_ids, places, strict=True)]


class CurrentVersions:
    """Loads what answers, and looks from time to time whether an alias names another version.

    Args:
        settings: all settings.
        figures: told when another version takes over.

    Attributes:
        now: what answers. It is exchanged as a whole, so a request takes it once.
        problem: why `now` may not be what the aliases name any more, in one line; None if it is.
        table_problem: why the table cannot be read, in one line; None if it can.

    Raises:
        RegistryError: a version is not there, is not what was registered, or the registry does not answer.
    """

    def __init__(self, settings: Settings, figures: ServerFigures) -> None:
        champion, experiment = versions.champion_uri(settings.mlflow.model_name), settings.experiment
        self._uris: dict[str | None, str] = {None: champion} | {
            name: versions.scored_uri(settings, arm.model) for name, arm in experiment.arms.items() if arm.share
        }
        self._seconds, self._figures = settings.serve.refresh_seconds, figures
        self._loader = Loader(versions.connect_to_existing(settings, champion))
        self._table = StoredTable(settings.storage)
        self.problem: str | None = None
        self.table_problem: str | None = None
        held = dict[str, ServedVersion]()
        served = dict[str | None, ServedVersion]()
        for arm, uri in self._uris.items():
            served[arm] = self._loader.named(uri, held)
            held[served[arm].version.uri] = served[arm]
        self.now = Moment(experiment, {arm: Answering(one, NO_LISTS) for arm, one in served.items()})
        if self._table.path is None:
            logger.info("every list is computed: only a table in a folder of this machine is read")
        self._answer_with(served)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow the aliases and the table while the context lasts."""
        end = threading.Event()

        def follow() -> None:
            if sys.platform == "linux":  # There it is this thread's alone: what answers goes first.
                os.nice(_NICENESS)
            while not end.wait(self._seconds):
                try:
                    self.look()
                except Exception:  # Whatever it is: the versions that are there go on answering.
                    self.problem = "a fault of the program, see the log"
                    logger.exception("cannot look for newer versions")

        thread = threading.Thread(target=follow, name="versions", daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            # Python may not end in the middle of a look: what is not Python in it would crash. One at a registry that
            # does not answer only waits, which does no harm.
            thread.join(_LAST_LOOK_SECONDS)

    def look(self) -> None:
        """Look once. A version that an alias names now is loaded beside the one that answers, then takes its place."""
        served = {arm: answering.served for arm, answering in self.now.of_arm.items()}
        held = {uri: answering.served for uri, answering in self.now.of_version.items()}
        problems = list[str]()
        for uri in dict.fromkeys(self._uris.values()):
            if versions.parse(uri)["alias"] is None:
                continue  # A number never names another version.
            try:
                found = self._loader.named(uri, held)
            except RegistryError as error:
                problems.append(str(error))
            else:
                held[found.version.uri] = found
                served |= {arm: found for arm, own in self._uris.items() if own == uri}
        problem = "; ".join(problems) or None
        if problem is not None and problem != self.problem:
            logger.warning("the versions that answer go on: %s", problem)
        self.problem = problem
        self._answer_with(served)

    def _answer_with(self, served: dict[str | None, ServedVersion]) -> None:
        """Let versions answer, each with its lists of the table."""
        before = self.now.of_version
        distinct = {one.version.uri: one for one in served.values()}
        lists, problem = None, None
        try:
            lists = self._table.newer([one.version for one in distinct.values()])
        except InputError as error:
            problem = str(error)
            if problem != self.table_problem:
                logger.warning("%s", problem)
        self.table_problem = problem
        if lists is None:
            lists = {uri: before[uri].lists if uri in before else NO_LISTS for uri in distinct}
        answering = {uri: Answering(one, lists[uri]) for uri, one in distinct.items()}
        self.now = Moment(self.now.experiment, {arm: answering[one.version.uri] for arm, one in served.items()})
        for uri in distinct.keys() - before.keys():
            self._figures.swapped()
            logger.info("%s answers; %d lists of the table are its own", uri, len(lists[uri]))

    def health(self) -> dict[str, Any]:
        """What answers, and what is wrong."""
        arms = {arm: one.name for arm, one in self.now.arms.items()}
        return {
            **self.now.champion.name,
            **({"arms": arms} if arms else {}),
            "stored_lists": self.now.stored_lists,
            "registry": self.problem or "ok",
            "table": self.table_problem or "ok",
        }
