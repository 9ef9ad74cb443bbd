"""Generates the settings page of the documentation: `python -m recsys.config.table FILE`."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recsys.config.sections import EventWeight
from recsys.config.settings import DEFAULT_WEIGHTS, Settings

HEADING = """\
# Settings

Written by `make settings` from `recsys/config/`; change the descriptions there.

Every job takes `--config FILE.yaml`, more than once where a file goes on top of another, and any number of
`key.sub=value` arguments. Later sources override earlier ones: the defaults, the files in their order, environment
variables (`RECSYS__STORAGE__ROOT=/data` sets `storage.root`), the command line. An unknown key, or a value of the wrong
type, ends the job with exit code 2 and a line that names the key.
"""

TABLE_HEAD = "| key | type | default | meaning |\n|---|---|---|---|"

# What a reader calls the types that pydantic validates.
PLAIN_NAMES = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "datetime": "time"}


class DescribedSetting(NamedTuple):
    """A setting for people; `kind` and `default` in Markdown."""

    key: str
    kind: str
    default: str
    meaning: str


def settings_page() -> str:
    """The page as Markdown: a table of the top-level settings, then one per section."""
    plain = [_described(name, field) for name, field in _fields(Settings) if _section(field) is None]
    parts = [HEADING, TABLE_HEAD, *map(_line, plain)]
    for name, field in _fields(Settings):
        section = _section(field)
        if section is not None:
            parts += [f"\n## `{name}`\n\n{_summary(section)}\n", TABLE_HEAD]
            parts += map(_line, described_settings(section, f"{name}."))
    parts.append(f"\n## `weights.<event_type>`\n\n{_summary(EventWeight)} Defaults: {default_weights()}.\n")
    parts += [TABLE_HEAD, *map(_line, described_settings(EventWeight, "weights.<event_type>."))]
    return "\n".join(parts) + "\n"


def default_weights() -> str:
    """The event types that count where `weights` is not set, each with its weight."""
    return ", ".join(f"`{kind}` {weight.weight:g}" for kind, weight in DEFAULT_WEIGHTS.items())


def described_settings(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[DescribedSetting]:
    """Every setting of a section, those of its inner sections included, in the order of their declaration.

    Args:
        section: a section; without one, all settings.
        prefix: what the keys of the section begin with.
    """
    for name, field in _fields(section):
        inner = _section(field)
        if inner is None:
            yield _described(prefix + name, field)
        else:
            yield from described_settings(inner, f"{prefix}{name}.")


def _described(key: str, field: FieldInfo) -> DescribedSetting:
    kind = _type_name(field.annotation) + _bound(field.metadata)
    return DescribedSetting(key, kind, _default(field), field.description or "")


def _line(setting: DescribedSetting) -> str:
    cells = (f"`{setting.key}`", *setting[1:])
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield field.alias or name, field


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _summary(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _type_name(kind: Any) -> str:
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if get_origin(kind) in (Union, UnionType):
        return " or ".join("`null`" if part is NoneType else _type_name(part) for part in arguments)
    if get_origin(kind) is Annotated:
        return _type_name(arguments[0]) + _bound(arguments[1:])
    if get_origin(kind) is dict:
        return "keys and values"
    name: str = kind.__name__
    return PLAIN_NAMES.get(name, name)


def _bound(constraints: Iterable[object]) -> str:
    words = ""
    for constraint in constraints:
        match constraint:
            case Gt(gt=bound):
                words += f" above {bound}"
            case Ge(ge=bound):
                words += f" from {bound}"
            case Lt(lt=bound):
                words += f" below {bound}"
            case Le(le=bound):
                words += f" to {bound}"
    return words


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, dict):
        # The default event types are listed under their own heading.
        return "see below" if value else "none"
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:.12g}`"
    return f"`{value}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(settings_page(), encoding="utf-8")
