"""Base class of the sections of the settings, and a type that several of them use."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Section(BaseModel):
    """Frozen, and strict: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _by_dotted_key(values: Any) -> Any:
    """Text by dotted key: an override such as `spark.spark.jars=x` arrives nested, and `header: true` as a boolean."""
    return dict(_flat(values)) if isinstance(values, Mapping) else values


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            yield f"{prefix}{key}", text if isinstance(value, bool | int | float) else value


# Options and settings of Spark.
TextByKey = Annotated[dict[str, str], BeforeValidator(_by_dotted_key)]
