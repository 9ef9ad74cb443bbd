"""Base class of the sections of the settings."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, and strict: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
