"""The versions that URIs of models name, loaded so that they answer at once."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import MlflowClient

from recsys.errors import RegistryError
from recsys.registry import versions
from recsys.registry.client import version_errors
from recsys.registry.served import ServedVersion
from recsys.registry.versions import Version

# A version that cannot be loaded is downloaded again only after so many seconds.
RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class _Refused:
    """Why a version could not be loaded, and until when that is taken for granted (monotonic seconds)."""

    why: str
    until: float


class Loader:
    """Loads versions, none of them twice.

    Args:
        client: From `connect`.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._refused: dict[str, _Refused] = {}

    def named(self, uri: str, held: Mapping[str, ServedVersion]) -> ServedVersion:
        """The version that a URI names now.

        Args:
            uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
            held: What is loaded already, by `Version.uri`.

        Raises:
            RegistryError: there is none, it cannot be loaded, or the registry does not answer.
        """
        version = versions.resolve(self._client, uri)
        if version.uri in held:
            return held[version.uri]
        now = time.monotonic()
        self._refused = {one: refused for one, refused in self._refused.items() if now < refused.until}
        if version.uri in self._refused:
            raise RegistryError(self._refused[version.uri].why)
        try:
            return _loaded(version)
        except RegistryError as error:
            self._refused[version.uri] = _Refused(str(error), time.monotonic() + RETRY_SECONDS)
            raise


def _loaded(version: Version) -> ServedVersion:
    """A version that has answered once, so that no request waits for what is made then."""
    served = ServedVersion(version)
    with version_errors(f"{version.uri} does not answer"):
        served.answer({"user_id": [None], "recent_items": [[]], "explain": [True]})
    return served
