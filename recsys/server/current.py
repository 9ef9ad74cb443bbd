"""The version that answers: the champion, replaced while requests are answered."""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recsys.config import Settings
from recsys.errors import InputError, RegistryError
from recsys.registry import versions
from recsys.registry.client import registry_errors
from recsys.registry.served import ServedVersion
from recsys.registry.versions import CHAMPION, Version
from recsys.server.figures import ServerFigures
from recsys.server.stored import NO_LISTS, StoredLists, StoredTable

logger = logging.getLogger(__name__)

# A version that cannot be loaded is downloaded again only after so many seconds.
RETRY_SECONDS = 60.0
# Of the thread that loads versions, from 0 to 19.
_NICENESS = 10


@dataclass(frozen=True)
class Answering:
    """What answers a request, from its beginning to its end.

    Attributes:
        served: the version.
        lists: those of the table that it has made.
    """

    served: ServedVersion
    lists: StoredLists


@dataclass(frozen=True)
class _Refused:
    """A version that could not be loaded, why, and until when that is taken for granted."""

    version: str
    why: str
    until: float


class CurrentChampion:
    """Loads the champion, and looks for a newer one from time to time.

    Args:
        settings: all settings.
        figures: told when another version takes over.

    Attributes:
        now: what answers. It is exchanged as a whole, so a request takes it once.
        problem: why `now` may not be the champion any more, in one line; None if it is.
        table_problem: why the table cannot be read, in one line; None if it can.

    Raises:
        RegistryError: there is no champion, it is not what was registered, or the registry does not answer.
    """

    def __init__(self, settings: Settings, figures: ServerFigures) -> None:
        self._name, self._seconds = settings.mlflow.model_name, settings.serve.refresh_seconds
        uri = f"models:/{self._name}@{CHAMPION}"
        self._client, self._figures = versions.connect_to_existing(settings, uri), figures
        self._refused: _Refused | None = None
        self._table = StoredTable(settings.storage)
        self.problem: str | None = None
        self.table_problem: str | None = None
        self.now = Answering(_loaded(versions.resolve(self._client, uri)), NO_LISTS)
        if settings.experiment.arms:
            logger.warning("experiment.arms is set: this service answers users of all arms with the champion")
        if self._table.path is None:
            logger.info("every list is computed: only a table in a folder of this machine is read")
        self._answer_with(self.now.served)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow the champion and the table while the context lasts."""
        end = threading.Event()

        def follow() -> None:
            if sys.platform == "linux":  # There it is this thread's alone: what answers goes first.
                os.nice(_NICENESS)
            while not end.wait(self._seconds):
                try:
                    self.look()
                except Exception:  # Whatever it is: the version that is there goes on answering.
                    self.problem = "a fault of the program, see the log"
                    logger.exception("cannot look for a newer champion")

        thread = threading.Thread(target=follow, name="champion", daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()

    def look(self) -> None:
        """Look once. A newer champion is loaded beside the version that answers, then takes its place."""
        served, problem = self.now.served, None
        try:
            served = self._champion()
        except RegistryError as error:
            problem = str(error)
            if problem != self.problem:
                logger.warning("version %s goes on answering: %s", served.version.version, problem)
        self.problem = problem
        self._answer_with(served)

    def _champion(self) -> ServedVersion:
        """The champion, loaded.

        Raises:
            RegistryError: there is none, it cannot be loaded, or the registry does not answer.
        """
        served, found = self.now.served, versions.champion(self._client, self._name)
        if found is None:
            raise RegistryError(f"models:/{self._name} has no champion any more")
        if found.version == served.version.version:
            self._refused = None
            return served
        refused = self._refused
        if refused is not None and found.version == refused.version and time.monotonic() < refused.until:
            raise RegistryError(refused.why)
        try:
            return _loaded(found)
        except RegistryError as error:
            self._refused = _Refused(found.version, str(error), time.monotonic() + RETRY_SECONDS)
            raise

    def _answer_with(self, served: ServedVersion) -> None:
        """Let a version answer, with its lists of the table."""
        before, lists, problem = self.now, None, None
        try:
            lists = self._table.newer(served.version)
        except InputError as error:
            problem = str(error)
            if problem != self.table_problem:
                logger.warning("%s", problem)
        self.table_problem = problem
        if lists is None:
            lists = before.lists if served is before.served else NO_LISTS
        self.now = Answering(served, lists)
        if served is not before.served:
            self._figures.swapped()
            logger.info("%s answers; %d lists of the table are its own", served.version.uri, len(lists))


def _loaded(version: Version) -> ServedVersion:
    """A version that has answered once, so that no request waits for what is made then."""
    served = ServedVersion(version)
    with registry_errors(f"{version.uri} does not answer"):
        served.answer({"user_id": [None], "recent_items": [[]], "explain": [True]})
    return served
