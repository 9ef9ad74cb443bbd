"""Typed settings: see `settings` for how they are read, `sections` and `model` for what there is to set."""

from recsys.config.settings import Settings, load_settings

__all__ = ["Settings", "load_settings"]
