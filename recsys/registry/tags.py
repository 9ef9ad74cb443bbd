"""Keys of the tags of models and versions, as the registry takes them.

Unity Catalog refuses dots in them. So those of a model with a name on three levels are stored with two underscores in
place of each dot, and read back as they were.
"""

from collections.abc import Mapping

_DOT = "__"


def stored(name: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a model, or of a version of it, as they are stored."""
    return {key.replace(".", _DOT): value for key, value in tags.items()} if _in_unity_catalog(name) else dict(tags)


def read(name: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Stored tags as they were."""
    return {key.replace(_DOT, "."): value for key, value in tags.items()} if _in_unity_catalog(name) else dict(tags)


def _in_unity_catalog(name: str) -> bool:
    return name.count(".") == 2
