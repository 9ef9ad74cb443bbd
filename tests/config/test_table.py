from pathlib import Path

import pytest

from recsys.config import load_settings
from recsys.config.table import settings_page

ROOT = Path(__file__).parents[2]


def test_the_documentation_is_up_to_date():
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == settings_page(), "run `make settings`"


@pytest.mark.parametrize(
    "row",
    [
        "| `seed` | whole number from 0 | `0` | "
        "Seed of every random choice. Change it to see how much results vary by chance. |",
        "| `decay.half_life_days` | number above 0 or `null` | `null` | Days after",
        "| `recommend.exclude_seen` | true or false | `true` | Leave out",
        "| `source.columns.event_id` | text or `null` | `event_id` | Column",
        "| `register.every_batches` | whole number above 0 | `20` | Batches",
        "| `weights.<event_type>.weight` | number | required | Weight of one event",
        "| `source.format` | `json` or `csv` or `parquet` or `delta` or `kafka` or `cloudFiles` | `json` | Format",
    ],
)
def test_rows_say_key_type_default_and_meaning(row):
    assert any(line.startswith(row) for line in settings_page().splitlines())


def test_every_key_a_file_may_hold_has_a_row():
    listed = {line.split("`")[1] for line in settings_page().splitlines() if line.startswith("| `")}
    given = load_settings().model_dump(by_alias=True, exclude={"weights"})
    assert set(leaves(given)) <= listed


def leaves(values: dict, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@pytest.mark.parametrize("file", sorted((ROOT / "conf").glob("*.yaml")), ids=lambda file: file.name)
def test_every_shipped_configuration_is_valid(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    load_settings(file)


def test_the_demo_replays_the_first_half_year_of_the_data_set():
    settings = load_settings(ROOT / "conf" / "demo.yaml")
    assert settings.replay.dataset == "completejourney"
    assert str(settings.replay.until) == "2017-07-01 00:00:00+00:00"
    assert settings.source.columns.event_id is None
    assert settings.source.options == {"maxFilesPerTrigger": "1"}
    assert settings.weights["purchase"].max_value >= 89_638, "the largest quantity in the data"
    assert not settings.recommend.exclude_seen
