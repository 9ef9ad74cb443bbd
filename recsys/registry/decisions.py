"""Which version is champion: promotion, rollback and hold, each with who decided it and why.

Aliases are moved last, so that a crash leaves at most a tag of a decision that did not take effect. Every function may
be called again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import MlflowClient

from recsys.errors import RegistryError
from recsys.registry.client import registry_errors
from recsys.registry.tags import read, stored
from recsys.registry.versions import CHAMPION, Version, by_alias, champion, find_model, resolve, tag

PREVIOUS = "previous"
_HOLD = "hold"
_PROMOTED, _ROLLED_BACK, _REPLACED = "promoted", "rolled_back", "replaced"


@dataclass(frozen=True)
class RegistryDecision:
    """A decision about a version.

    Attributes:
        by: who made it, a person or `stream`; reason: why, one line.
    """

    by: str
    reason: str

    def tags(self, what: str) -> dict[str, str]:
        """Tags that record it."""
        return {f"{what}.by": self.by, f"{what}.reason": self.reason}


def promote(client: MlflowClient, version: Version, decision: RegistryDecision, what: str = _PROMOTED) -> None:
    """Make a version the champion; the alias `previous` gets the one before, and tags that say who replaced it.

    Scoring and serving depend on the alias `champion` only, so it is set last. A rollback sets it first: the version
    that it goes back to has no other alias than `previous`, and one without any may be deleted.

    Args:
        client: from `connect`.
        version: the version.
        decision: recorded in tags of the version.
        what: name of the tags.

    Raises:
        RegistryError: MLflow failed. Calling again is safe.
    """
    before = champion(client, version.name)
    with registry_errors(f"cannot make {version.uri} the champion"):
        tag(client, version, decision.tags(what))
        aliases = [(CHAMPION, version.version)]
        if before is not None and before.version != version.version:
            tag(client, before, decision.tags(_REPLACED))
            aliases.insert(len(aliases) if what == _ROLLED_BACK else 0, (PREVIOUS, before.version))
        for alias, number in aliases:
            client.set_registered_model_alias(version.name, alias, number)


def rollback(client: MlflowClient, name: str, to: str | None, decision: RegistryDecision) -> Version:
    """Make an earlier version the champion again.

    Args:
        client: from `connect`.
        name: name of the model.
        to: number of the version; None: the one that was champion before.
        decision: recorded in tags of the version.

    Raises:
        RegistryError: there is no such version, or MLflow failed.
    """
    earlier = previous(client, name) if to is None else resolve(client, f"models:/{name}/{to}")
    if earlier is None:
        raise RegistryError(f"models:/{name} has had no champion before this one: name a version to go back to")
    promote(client, earlier, decision, _ROLLED_BACK)
    return earlier


def previous(client: MlflowClient, name: str) -> Version | None:
    """The version that was champion before, or None if there is none.

    Raises:
        RegistryError: MLflow failed.
    """
    return by_alias(client, name, PREVIOUS)


def hold(client: MlflowClient, name: str, decision: RegistryDecision) -> None:
    """Have the stream promote no version until `release`.

    Raises:
        RegistryError: there is no such model, or MLflow failed.
    """
    with registry_errors(f"cannot hold models:/{name}"):
        for key, value in stored(name, decision.tags(_HOLD)).items():
            client.set_registered_model_tag(name, key, value)


def release(client: MlflowClient, name: str) -> None:
    """End a hold, if there is one.

    Raises:
        RegistryError: there is no such model, or MLflow failed.
    """
    with registry_errors(f"cannot release models:/{name}"):
        there = client.get_registered_model(name).tags
        for key in stored(name, RegistryDecision("", "").tags(_HOLD)).keys() & there.keys():
            client.delete_registered_model_tag(name, key)


def promoted_by(version: Version) -> str | None:
    """Who has promoted a version that nobody has rolled back to since; None if nobody has."""
    promotion, rollback = _recorded(version.tags, _PROMOTED), _recorded(version.tags, _ROLLED_BACK)
    return None if promotion is None or rollback is not None else promotion.by


def replaced_by(version: Version) -> RegistryDecision | None:
    """Who has replaced a version as the champion, or None if nobody has."""
    return _recorded(version.tags, _REPLACED)


@dataclass(frozen=True)
class Standing:
    """Who is what in the registry.

    Attributes:
        aliases: numbers of versions by alias.
        hold: who holds the promotions, and why; None if nobody does.
    """

    aliases: Mapping[str, str]
    hold: RegistryDecision | None


def standing(client: MlflowClient, name: str) -> Standing:
    """Look who is what, in one call; nobody is anything where there is no such model.

    Raises:
        RegistryError: MLflow failed.
    """
    with registry_errors(f"cannot look up models:/{name}"):
        model = find_model(client, name)
    if model is None:
        return Standing({}, None)
    aliases = {alias: str(number) for alias, number in model.aliases.items()}
    return Standing(aliases, _recorded(read(name, model.tags), _HOLD))


def _recorded(tags: Mapping[str, str], what: str) -> RegistryDecision | None:
    """The decision that `RegistryDecision.tags` has recorded; None if there is none."""
    by, reason = (tags.get(key) for key in RegistryDecision("", "").tags(what))
    return None if by is None else RegistryDecision(by, reason or "")
