"""Prequential evaluation of a frame: the figures are those of the models, measured before they learn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recsys import evaluate
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import ConfigError, InputError
from recsys.frames import given_events
from recsys.model.evaluation import prequential
from recsys.model.recommender import OnlineModel
from tests.test_door import SMALL, START, history

REPEATS = SMALL | {"recommend.exclude_seen": False, "recommend.k": 5}


@pytest.fixture(scope="module")
def result() -> evaluate.Prequential:
    return evaluate.prequential(history(2_000), REPEATS, batches=10)


def test_each_member_is_measured_as_if_it_were_alone(result: evaluate.Prequential) -> None:
    assert result.methods == ("mixture", "als", "trend", "cooccurrence", "repeat", "sessions", "popularity")
    assert result.batches == tuple(range(2, 10))
    for kind in ("als", "trend"):
        alone = evaluate.prequential(history(2_000), REPEATS | {"model.kind": kind}, batches=10)
        assert alone.methods == (kind, "popularity")
        for method in alone.methods:
            np.testing.assert_equal(alone.figures[method], result.figures[method])


def test_figures_are_the_models_own_before_it_learns(result: evaluate.Prequential) -> None:
    nested = {"model": {"factors": 4, "rebuild_sweeps": 2}, "device": "cpu"}
    settings = Settings.model_validate(nested | {"recommend": {"exclude_seen": False, "k": 5}})
    model, expected = OnlineModel(settings), []
    for number, batch in enumerate(given_events(history(2_000), settings).batches(200)):
        expected.append(prequential.evaluate(batch, model, {}, settings, StepId(0, number)))
        model.update(batch, StepId(0, number))
    for method, name in (("mixture", "model"), ("popularity", "popularity")):
        for figure, values in result.figures[method].items():
            assert values == [figures[f"{name}/{figure}"] for figures in expected[2:]]
    assert result.table.set_index("method").loc["mixture", "recall_at_5"] == pytest.approx(
        np.mean([figures["model/recall_at_5"] for figures in expected[2:]])
    )


def test_the_table_has_the_means_of_the_batches(result: evaluate.Prequential) -> None:
    names = ["ndcg_at_5", "recall_at_5", "precision_at_5", "f1_at_5", "auc", "coverage_at_5"]
    assert result.table.columns.tolist() == ["method", *names]
    assert result.table["method"].tolist() == list(result.methods)
    means = result.by_batch.groupby("method", sort=False)[names].mean().reset_index()
    pd.testing.assert_frame_equal(result.table, means, check_names=False)
    assert len(result.by_batch) == 7 * 8
    text = repr(result)
    assert f"{result.table['ndcg_at_5'][0]:.4f}" in text
    assert "means over 8 batches" in text


def test_the_plot_has_a_line_for_each_method(result: evaluate.Prequential, tmp_path: Path) -> None:
    figure = result.plot()
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == list(result.methods)
    assert len({line.get_color() for line in axes.lines}) == len(result.methods)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), result.figures["mixture"]["ndcg_at_5"])
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_a_plot_says_what_it_needs(result: evaluate.Prequential, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'recsys-stream\[plots\]'"):
        result.plot()


def test_events_that_make_too_few_batches_are_refused() -> None:
    with pytest.raises(InputError, match="400 events make 1 batch, 5 are needed: .*batches=5"):
        evaluate.prequential(history(400))
    with pytest.raises(InputError, match="400 events make 1 batch,"):
        evaluate.prequential(history(400).assign(event_time=START), batches=10)
    with pytest.raises(InputError, match="batches is 4"):
        evaluate.prequential(history(400), batches=4)


def test_a_history_without_anybody_to_measure_is_refused() -> None:
    events = pa.table({"user_id": ["u"] * 10, "item_id": ["i"] * 10, "event_time": range(10**9, 10**9 + 10)})
    with pytest.raises(InputError, match="nobody could be measured"):
        evaluate.prequential(events, SMALL, batches=5)


def test_click_rates_are_nan_where_too_few_users_tell() -> None:
    users = [f"u{number}" for number in range(150)]
    of_version = {"model_name": "m", "model_version": "3", "ranking": "als", "propensity": 0.5}
    shown = pd.DataFrame({"user_id": users, "list_id": users, **of_version, "impressions": 4, "clicks": [1, 0, 0] * 50})
    few = shown.head(99).assign(ranking="trend_100")
    told = shown.assign(
        list_id=[f"{user} again" for user in users], impressions=0, clicks=1
    )  # Never reported as shown.
    frame = pd.concat([shown.assign(list_id="?"), few.assign(list_id=users[:99]), shown, told], ignore_index=True)
    frame.loc[:149, ["model_name", "model_version", "ranking", "propensity"]] = None  # Lists of another system.
    found = evaluate.click_rates(frame)
    assert found[["version", "ranking", "users"]].to_numpy().tolist() == [["m/3", "als", 150], ["m/3", "trend_100", 99]]
    enough = found.iloc[0]
    assert enough.rate == enough.rate_for_all == pytest.approx(1 / 12)
    assert 0.05 < enough.rate_lower < enough.rate < enough.rate_upper < 0.13
    assert found.iloc[1].drop(["version", "ranking", "users", "impressions", "clicks"]).isna().all()
    assert evaluate.click_rates(shown.head(0)).empty
    with pytest.raises(InputError, match="the exposures have no column 'propensity'"):
        evaluate.click_rates(shown.drop(columns="propensity"))
