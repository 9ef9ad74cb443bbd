"""The bench of the gate, on streams that take seconds."""

import re

import pytest

from bench.reliability import gate


def test_there_are_many_kinds_of_poison_of_distinct_names() -> None:
    scripts = [*gate.SCRIPTS, *gate.UNSEEN, *gate.QUIET]
    assert len(gate.SCRIPTS) >= 20
    assert len({script.name for script in scripts}) == len(scripts)


def test_a_poisoned_version_is_held_back_and_a_clean_one_promoted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate, "USERS", 300)
    monkeypatch.setattr(gate, "EVENTS", 600)
    poison = [script for script in gate.SCRIPTS if "nearly all items" in script.name]
    gate.main(clean=2, scripts=poison, unseen=[])
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r" 1 +1 +0 +1 +0 +– +0\.\d+ +0$", lines[1]), "it is worse, and rejected"
    assert re.fullmatch(r"bad_promotions=0 false_rejects=0\.000 time_to_promote_batches=\d+(\.5)?", lines[-1])
