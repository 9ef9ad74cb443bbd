import math
from datetime import UTC, datetime, timedelta

import pytest

from recsys.config import load_settings
from recsys.contracts import LedgerRow, StepId
from recsys.registry import attempts
from recsys.registry.runs import LAST_SENT_TAG, GenerationRun

START = datetime(2026, 3, 1, tzinfo=UTC)


def row(batch: int, generation: int = 0, **metrics: float) -> LedgerRow:
    return LedgerRow(
        StepId(generation, batch),
        log_version=batch + 1,
        events=100 + batch,
        users=10,
        items=5,
        duration_ms=1500,
        ingested_at=START + timedelta(seconds=batch),
        metrics={"model/ndcg_at_20": batch / 100, **metrics},
    )


def logged(client, run, key="model/ndcg_at_20") -> list[tuple[int, float]]:
    history = client.get_metric_history(run.run_id, key)
    return sorted((metric.step, metric.value) for metric in history)


def test_a_batch_is_a_step_at_the_time_it_came_in(registry, open_run):
    client, _ = registry
    run = open_run()
    assert run.send([row(7)])
    (metric,) = client.get_metric_history(run.run_id, "model/ndcg_at_20")
    assert (metric.step, metric.value) == (7, 0.07)
    assert metric.timestamp == int((START + timedelta(seconds=7)).timestamp() * 1000)
    assert logged(client, run, "events") == [(7, 107)]
    assert logged(client, run, "batch_seconds") == [(7, 1.5)]


def test_a_long_run_has_all_metrics_of_some_batches_and_the_ones_to_watch_of_all(registry, open_run):
    client, _ = registry
    run = open_run()
    rows = [row(batch, auc=0.5, **{"mixture/regret": 1.0}) for batch in range(403)]
    assert run.send(rows)
    for watched in ("model/ndcg_at_20", "mixture/regret", "events", "batch_seconds"):
        assert [step for step, _ in logged(client, run, watched)] == list(range(403))
    for other in ("auc", "users"):
        assert [step for step, _ in logged(client, run, other)] == [*range(200), *range(200, 403, 20)]


def test_rows_that_were_sent_are_not_sent_again(registry, open_run):
    client, _ = registry
    run = open_run()
    rows = [row(batch) for batch in range(5)]
    assert run.send(rows[:3])
    assert run.send(rows)
    again = open_run()
    assert (again.run_id, again.last_sent) == (run.run_id, 4)
    assert again.send(rows)
    assert logged(client, run) == [(batch, batch / 100) for batch in range(5)]


def test_a_call_that_was_cut_off_before_its_tag_leaves_no_step_twice(registry, open_run):
    client, _ = registry
    run = open_run()
    run.send([row(batch) for batch in range(3)])
    client.set_tag(run.run_id, LAST_SENT_TAG, "0")  # as if the process had died between the metrics and the tag
    again = open_run()
    assert again.last_sent == 0
    assert again.send([row(batch) for batch in range(4)])
    assert [step for step, _ in logged(client, run)] == [0, 1, 2, 3]


def test_more_metrics_than_one_call_takes(registry, open_run):
    client, _ = registry
    run = open_run()
    wide = {f"figure_{number}": 1.0 for number in range(400)}
    assert run.send([row(batch, **wide) for batch in range(6)])
    assert [step for step, _ in logged(client, run, "figure_399")] == list(range(6))


def test_a_figure_that_is_no_number_is_left_out(registry, open_run):
    client, _ = registry
    run = open_run()
    assert run.send([row(0, auc=math.nan, gain=math.inf)])
    assert set(client.get_run(run.run_id).data.metrics) == {
        "model/ndcg_at_20",
        "events",
        "users",
        "items",
        "batch_seconds",
    }


def test_epochs_and_streams_have_runs_of_their_own(open_run):
    runs = {open_run(*which).run_id for which in ((0, "a"), (1, "a"), (0, "b"), (0, "a"))}
    assert len(runs) == 3


def test_a_row_of_another_epoch_is_a_mistake(open_run):
    with pytest.raises(ValueError, match="a row of generation 2 was handed to the run of generation 1"):
        open_run(1).send([row(0, generation=2)])


def test_settings_are_logged_without_secrets_and_with_any_event_type(registry):
    client, settings = registry
    words = [f"storage.root={settings.storage.root}", f"mlflow.experiment={settings.mlflow.experiment}"]
    odd = settings.model_validate(
        {
            **load_settings(overrides=words).model_dump(by_alias=True),
            "weights": {"видео//50%!": 1.0, "..": 2.0},
            "source": {"options": {"password": "s3cret"}},
            "spark": {"spark.hadoop.token": "s3cret"},
        }
    )
    run = GenerationRun.open(client, odd, 0, "stream")
    logged_parameters = client.get_run(run.run_id).data.params
    assert logged_parameters["model.factors"] == "64"
    assert logged_parameters["weights.видео__50__.weight"] == "1.0"
    assert "s3cret" not in str(logged_parameters)


def test_a_run_is_opened_again_with_parameters_that_came_later(registry, open_run):
    client, settings = registry
    open_run()
    more = settings.model_copy(
        update={"weights": {**settings.weights, **load_settings(overrides=["weights.gift=3"]).weights}}
    )
    again = GenerationRun.open(client, more, 0, "stream")
    assert client.get_run(again.run_id).data.params["weights.gift.weight"] == "3.0"


def test_a_closed_run_is_finished_and_runs_again_when_opened(registry, open_run):
    client, _ = registry
    run = open_run()
    run.pending.append(row(3))
    assert run.close()
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert run.last_sent == 3
    again = open_run()
    assert client.get_run(again.run_id).info.status == "RUNNING"
    again.close(failed=True)
    assert client.get_run(again.run_id).info.status == "FAILED"


def test_a_run_remembers_how_far_versions_are_published(open_run):
    run = open_run()
    assert run.published_through == -1
    run.mark_published(40)
    assert run.published_through == 40
    assert open_run().published_through == 40


def test_a_run_remembers_which_version_was_due_last(open_run):
    run = open_run()
    assert run.due == -1
    run.mark_due(40)
    assert (run.due, run.published_through) == (40, -1)
    assert open_run().due == 40


def test_lineage_names_the_log_and_its_versions_once(registry, open_run):
    client, _ = registry
    run = open_run()
    for _ in range(2):
        run.log_lineage("/data/tables/interaction_log", 3, 9)
    run.log_lineage("main.shop.interaction_log", 3, 12)
    found = client.get_run(run.run_id)
    sources = sorted(given.dataset.source for given in found.inputs.dataset_inputs)
    assert len(sources) == 2
    assert '"path": "/data/tables/interaction_log"' in sources[1]
    assert '"delta_table_version": 9' in sources[1]
    assert '"delta_table_name": "main.shop.interaction_log"' in sources[0]
    assert found.data.tags["interaction_log.from_version"] == "3"
    assert found.data.tags["interaction_log.to_version"] == "12"
    assert open_run().log_begin == 3


def test_a_plot_is_replaced_by_the_next_of_its_name(registry, open_run, tmp_path):
    client, _ = registry
    run = open_run()
    plot = tmp_path / "quality.png"
    for text in ("first", "second"):
        plot.write_text(text)
        run.log_plot(plot)
    assert [file.path for file in client.list_artifacts(run.run_id, "plots")] == ["plots/quality.png"]
    kept = client.download_artifacts(run.run_id, "plots/quality.png")
    with open(kept) as file:
        assert file.read() == "second"


def test_a_server_that_keeps_failing_is_left_alone_for_a_while(registry, open_run, monkeypatch):
    client, _ = registry
    run = open_run()
    now = [100.0]
    monkeypatch.setattr(attempts.time, "monotonic", lambda: now[0])
    log_batch = client.log_batch

    def slow(*args, **kwargs):
        now[0] += 3.0
        return log_batch(*args, **kwargs)

    monkeypatch.setattr(client, "log_batch", slow)
    client.delete_run(run.run_id)  # MLflow refuses what is sent to it now
    assert not run.send([row(0)])
    assert run.error is not None
    client.restore_run(run.run_id)
    now[0] += 29.0
    assert not run.send([row(1)])
    assert [waiting.step.batch_id for waiting in run.pending] == [0, 1]
    now[0] += 2.0
    assert run.send([row(2)])
    assert (run.error, run.pending) == (None, [])
    assert [step for step, _ in logged(client, run)] == [0, 1, 2]
