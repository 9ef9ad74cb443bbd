"""The bench of `tune`: what a gain is, and the figures of its last line."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.harness.streams import Stream
from bench.quality import tune as bench
from recsys.config.settings import as_settings
from tests.bench.helpers import generated


def read_generated(folder: Path) -> pd.DataFrame:
    del folder
    return generated(2_400)


def test_the_bench_tells_the_smallest_gains(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    streams = {name: Stream(name, read_generated, size, None, False) for name, size in (("a", 100), ("b", 200))}
    monkeypatch.setattr(bench, "STREAMS", streams)
    monkeypatch.setattr(bench, "CHOSEN", tuple(streams))
    monkeypatch.setattr(bench, "KINDS", {"cooccurrence": "", "repeat": "_other"})
    monkeypatch.setattr(bench, "QUICK_TRIALS", 3)
    found = []

    def noted(*given: object) -> object:
        found.append(bench_run(*given))
        return found[-1]

    bench_run = bench.run
    monkeypatch.setattr(bench, "run", noted)
    monkeypatch.setattr(sys, "argv", ["tune", "--quick", "--data", str(tmp_path)])
    bench.main()
    last = dict(word.split("=") for word in capsys.readouterr().out.splitlines()[-1].split())
    assert list(last) == ["tune_gain_first", "tune_gain_unseen", "tune_gain_first_other", "tune_gain_unseen_other"]
    assert [tuning.searched for tuning in found] == [12, 6, 12, 6]
    for begin, suffix in ((0, ""), (2, "_other")):
        gains = [bench.gains(tuning) for tuning in found[begin : begin + 2]]
        assert float(last[f"tune_gain_first{suffix}"]) == pytest.approx(min(gain[0] for gain in gains), abs=1e-4)
        assert float(last[f"tune_gain_unseen{suffix}"]) == pytest.approx(min(gain[1] for gain in gains), abs=1e-4)
    assert max(bench.gains(tuning)[0] for tuning in found) > 1
    unseen = max(found, key=lambda tuning: bench.gains(tuning)[0]).unseen
    assert unseen is not None


def test_it_starts_from_the_defaults() -> None:
    default = as_settings({"model.kind": "mixture", "recommend.exclude_seen": False})
    assert bench.settings_of("mixture", exclude_seen=False, trials=9).shaping() == default.shaping()
