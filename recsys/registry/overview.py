"""The versions of a model, for people to read."""

from mlflow import MlflowClient

from recsys.errors import RegistryError
from recsys.registry.client import registry_errors
from recsys.registry.versions import REASONS, VERDICT, Version, all_versions

HEAD = ("version", "aliases", "batch", "NDCG", "of champion", "gate", "reasons")


def listed(client: MlflowClient, name: str) -> list[tuple[str, ...]]:
    """The versions of a model, newest first, with the columns of `HEAD`.

    Raises:
        RegistryError: there is no such model, or MLflow failed.
    """
    with registry_errors(f"cannot list the versions of '{name}'"):
        aliases: dict[str, list[str]] = {}
        for alias, number in client.get_registered_model(name).aliases.items():
            aliases.setdefault(str(number), []).append(alias)
        found = all_versions(client, name)
    if not found:
        raise RegistryError(f"models:/{name} has no versions")
    return [_row(version, sorted(aliases.get(version.version, []))) for version in found]


def table(client: MlflowClient, name: str) -> str:
    """The versions of a model as a table, newest first.

    Raises:
        RegistryError: there is no such model, or MLflow failed.
    """
    rows = [HEAD, *listed(client, name)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ((word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join("  ".join(words).rstrip() for words in padded)


def card(version: Version) -> str:
    """All that the tags of a version say, one line each."""
    return "\n".join([version.uri, *(f"  {key}: {value}" for key, value in sorted(version.tags.items()))])


def _row(version: Version, aliases: list[str]) -> tuple[str, ...]:
    tags = version.tags
    ndcg = (tags.get(f"gate.{name}", "") for name in ("version", "champion"))
    verdict = (tags.get(VERDICT, ""), tags.get(REASONS, ""))
    return (version.version, ", ".join(aliases), str(version.step or ""), *ndcg, *verdict)
