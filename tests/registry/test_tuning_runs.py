"""The runs of a search: MLflow may be away in between, and has everything in the end."""

import math

import pytest
from mlflow import MlflowClient

from recsys.config import Settings
from recsys.registry import attempts
from recsys.registry.client import experiment_id
from recsys.registry.tuning_runs import TuningRuns


def test_trials_wait_while_mlflow_refuses_them(
    registry: tuple[MlflowClient, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "SHARE_OF_TIME", math.inf)  # each trial may try again
    client, settings = registry
    experiment = experiment_id(client, settings)
    with TuningRuns(client, settings, {"log": "17"}) as runs:
        runs.trial(0, {"model.alpha": 4.0}, "complete", {"ndcg": 0.2, "batch/ndcg": [0.1, math.nan, 0.3]})
        client.delete_experiment(experiment)
        runs.trial(1, {"model.alpha": 8.0}, "pruned", {"ndcg": 0.1})
        client.restore_experiment(experiment)
        runs.outcome({"gain": 0.5}, {"decay.half_life_days": None})
    found = {run.info.run_name: run for run in client.search_runs([experiment])}
    parent = found.pop(f"{settings.mlflow.model_name}-tune")
    assert found.keys() == {"trial-0", "trial-1"}
    assert {run.info.status for run in (parent, *found.values())} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent.info.run_id}
    assert [found[name].data.tags["state"] for name in sorted(found)] == ["complete", "pruned"]
    assert [found[name].data.params for name in sorted(found)] == [{"model.alpha": "4.0"}, {"model.alpha": "8.0"}]
    measured = client.get_metric_history(found["trial-0"].info.run_id, "batch/ndcg")
    assert [(metric.step, metric.value) for metric in measured] == [(0, 0.1), (2, 0.3)]
    assert parent.data.tags["log"] == "17"
    assert parent.data.params.items() >= {("tuned.decay.half_life_days", "None"), ("tune.share", "0.5")}
    assert parent.data.metrics == {"gain": 0.5}


def test_a_search_that_fails_has_a_failed_run_and_what_is_lost_is_told(
    registry: tuple[MlflowClient, Settings], caplog: pytest.LogCaptureFixture
) -> None:
    client, settings = registry
    with pytest.raises(ZeroDivisionError), TuningRuns(client, settings, {}) as runs:
        raise ZeroDivisionError
    assert client.get_run(runs.run_id).info.status == "FAILED"
    assert not caplog.text
    with TuningRuns(client, settings, {}) as runs:
        client.delete_run(runs.run_id)
    assert "MLflow lacks a part of what was measured: MLflow failed" in caplog.text
