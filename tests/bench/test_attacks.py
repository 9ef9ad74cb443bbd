"""The bench of attacks: what is scripted, and what it prints."""

import re

import pytest

from bench.reliability import attacks as bench


def test_there_are_many_attacks_of_distinct_names() -> None:
    scripted = bench.attacks()
    assert len({attack.name for attack in scripted}) == len(scripted) >= 20


def test_a_list_has_changed_if_an_item_is_another_one() -> None:
    assert bench.changed([{"a", "b"}, {"c"}], [{"b", "a"}, {"d"}]) == 0.5


def test_protection_keeps_lists_that_a_flood_would_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    floods = [attack for attack in bench.attacks() if "million" in attack.name or "cancel" in attack.name]
    monkeypatch.setattr(bench, "BATCHES", 8)
    bench.run(floods)
    last = capsys.readouterr().out.splitlines()[-1]
    found = re.fullmatch(r"attacks=2 changed_without=(\d\.\d+) changed_with=(\d\.\d+)", last)
    assert found is not None
    without, protected = map(float, found.groups())
    assert protected < 0.5 * without
