"""What is searched: settings that shape the model, in order, with the configured value among them."""

import pytest

from recsys.config import Settings
from recsys.config.fingerprint import shapes
from recsys.config.settings import as_settings, with_values
from recsys.errors import ConfigError
from recsys.tuning.space import SPACE, space_of, value_of


def keys(settings: Settings) -> list[str]:
    return [dimension.key for dimension in space_of(settings)]


@pytest.mark.parametrize("kind", SPACE)
def test_every_value_is_a_setting_that_shapes_the_model(kind: str) -> None:
    settings = as_settings({"model.kind": kind, "recommend.exclude_seen": False, "items.path": "items.csv"})
    for key, values in SPACE[kind].items():
        assert shapes(key, kind, settings.model.mixture.members)
        assert values == tuple(sorted(values, key=lambda value: float("inf") if value is None else value))
        for value in values:
            changed = with_values(settings, {key: value})
            assert value_of(changed, key) == value
            assert (changed.fingerprint() == settings.fingerprint()) == (value == value_of(settings, key))
    if SPACE[kind]:
        assert keys(settings) == list(SPACE[kind])


def test_every_kind_has_a_space() -> None:
    kinds = Settings.model_fields["model"].annotation.model_fields["kind"].annotation
    assert set(SPACE) == set(kinds.__args__)


def test_the_configured_value_is_searched_too() -> None:
    settings = as_settings({"model.kind": "als", "model.alpha": 3, "decay.half_life_days": None})
    found = {dimension.key: dimension for dimension in space_of(settings)}
    assert found["model.alpha"].values == (1, 2, 3, 4, 8, 16, 32)
    assert found["model.alpha"].current == 2
    assert found["decay.half_life_days"].values[-1] is None
    assert found["decay.half_life_days"].current == len(found["decay.half_life_days"].values) - 1


def test_members_that_are_absent_have_no_say() -> None:
    repeat = "model.mixture.repeat_half_life_days"
    assert repeat in keys(as_settings({"recommend.exclude_seen": False}))
    assert repeat not in keys(as_settings({"recommend.exclude_seen": True}))
    counting = as_settings({"model.mixture.members": ["trend", "cooccurrence"], "recommend.exclude_seen": True})
    assert "model.alpha" not in keys(counting)
    assert "model.mixture.cooccurrence_half_life" in keys(counting)


def test_only_some_are_searched() -> None:
    assert keys(as_settings({"tune.keys": ["model.alpha", "model.alpha"]})) == ["model.alpha"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tune.keys": ["model.sweeps"]}, "tune.keys: 'model.sweeps' is not searched with model.kind mixture; these"),
        ({"tune.keys": ["model.mixture.repeat_half_life_days"]}, "these are: decay.half_life_days, "),
        ({"model.kind": "trend"}, "model.kind: trend has nothing to tune"),
    ],
)
def test_what_is_not_searched_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space_of(as_settings(values))
