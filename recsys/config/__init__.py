"""Typed settings: `settings` reads and validates them, `sections`, `operation` and `model` define them."""

from recsys.config.settings import Settings, load_settings

__all__ = ["Settings", "load_settings"]
