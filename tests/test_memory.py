"""Arenas of the allocator."""

import os

import pytest

from recsys.memory import share_arenas


def test_java_inherits_what_is_not_set_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    share_arenas()
    assert os.environ["MALLOC_ARENA_MAX"] == "7"
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    share_arenas()
    assert os.environ["MALLOC_ARENA_MAX"] == "2"
