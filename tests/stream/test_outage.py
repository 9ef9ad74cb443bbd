"""A stream whose tracking server, or its source, is down, slow or failing."""

import math
import threading
from contextlib import ExitStack
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from pyspark.sql import SparkSession

from recsys.cli import DONE, TRY_AGAIN, run_job
from recsys.config import Settings, load_settings
from recsys.contracts import StepId
from recsys.errors import RegistryDownError
from recsys.registry import artifacts, attempts, versions
from recsys.registry.client import connect, experiment_id
from recsys.stream.job import run_stream
from recsys.stream.rebuild import rebuild
from recsys.tables import ledger
from recsys.tables.delta import Tables
from tests.registry.processes import free_port, mlflow_process
from tests.stream.checks import MakeSettings
from tests.streams import write_stream


@pytest.mark.mlflow
@pytest.mark.process
@pytest.mark.heavy
def test_a_stream_starts_without_mlflow_and_catches_up_when_it_answers(
    spark: SparkSession,
    stream: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(attempts, "SHARE_OF_TIME", math.inf)  # each batch may try again
    port, database = free_port(), Path(stream.storage.root) / "mlflow.db"
    settings = stream.model_copy(
        update={"mlflow": stream.mlflow.model_copy(update={"tracking_uri": f"http://127.0.0.1:{port}"})}
    )
    arguments = ["server", "--backend-store-uri", f"sqlite:///{database}", "--workers", "1"]
    arguments += ["--artifacts-destination", str(tmp_path / "artifacts")]
    server = mlflow_process(arguments, port, "/health", tmp_path / "server.log")
    folder, name = Path(settings.source.path), settings.mlflow.model_name
    tables = Tables(spark, settings.storage)
    write_stream(folder, files=3)

    with pytest.raises(RegistryDownError, match="MLflow does not answer"):
        run_stream(settings)
    assert ledger.last_row(tables) is None, "a first start waits for MLflow"
    with server:
        assert run_stream(settings).champion_version == "1"

    write_stream(folder, files=4, first=3)
    summary = run_stream(settings)
    assert (summary.batches, summary.champion_version) == (1, None)
    assert "metrics of 1 batch did not reach MLflow" in caplog.text
    with pytest.raises(RegistryDownError, match="MLflow does not answer"):
        rebuild(settings)

    write_stream(folder, files=7, first=4)
    with ExitStack() as processes:

        def come_back(stage: str, step: StepId) -> None:
            if (stage, step.batch_id) == ("ledger", 5):
                processes.enter_context(mlflow_process(arguments, port, "/health", tmp_path / "server.log"))

        summary = run_stream(settings, observe=come_back)
        assert (summary.batches, summary.champion_version is None) == (3, False)
        client = connect(settings)
        (run,) = client.search_runs([experiment_id(client, settings)])
        sent = [metric.step for metric in client.get_metric_history(run.info.run_id, "events")]
        assert sorted(sent) == list(range(7))
        found = client.search_model_versions(f"name='{name}'")
        steps = {versions.resolve(client, f"models:/{name}/{one.version}").step for one in found}
        assert steps == {StepId(0, 2), StepId(0, 5)}, "the version that was due is registered when MLflow answers"
    rows = ledger.read(tables, generation=0, after=-1)
    compared = [row.step.batch_id for row in rows if "champion/ndcg_at_5" in row.metrics]
    assert compared == [6], "the champion is compared with again"


@pytest.mark.mlflow
def test_a_fault_in_a_registration_stops_the_stream_and_does_not_wait_like_an_outage(
    spark: SparkSession, stream: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object) -> None:
        raise KeyError("user_factors")

    write_stream(Path(stream.source.path), files=3)
    with monkeypatch.context() as fault:
        fault.setattr(artifacts, "upload", faulty)
        with pytest.raises(KeyError, match="user_factors"):
            run_stream(stream)
    assert run_stream(stream).champion_version == "1", "once it is mended, the version is made up for"


def test_a_source_that_does_not_answer_is_tried_again(
    spark: SparkSession, ready: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ready(tmp_path, source={"path": f"hdfs://127.0.0.1:{free_port()}/events"}, weights={"view": 1})
    config = tmp_path / "stream.yaml"
    config.write_text(yaml.safe_dump(made.model_dump(mode="json", by_alias=True)))
    spark.conf.set("ipc.client.connect.max.retries", "0")  # Hadoop would try for ten seconds.
    try:
        assert run_job(run_stream, ["--config", str(config)]) == TRY_AGAIN
    finally:
        spark.conf.unset("ipc.client.connect.max.retries")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "does not answer (java.net.ConnectException" in line


class Ailing(BaseHTTPRequestHandler):
    """A tracking server that fails every request, or answers none."""

    hanging = threading.Event()
    over = threading.Event()

    def do_GET(self) -> None:
        """Answer with an error, or hang until the test is over."""
        if self.hanging.is_set():
            self.over.wait()
            return
        self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)

    def do_POST(self) -> None:
        """The same."""
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to do."""


@pytest.mark.mlflow
def test_a_tracking_server_that_fails_or_hangs_never_stops_the_stream(
    spark: SparkSession,
    stream: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder, tables = Path(stream.source.path), Tables(spark, stream.storage)
    config = tmp_path / "stream.yaml"
    config.write_text(yaml.safe_dump(stream.model_dump(mode="json", by_alias=True)))
    write_stream(folder, files=1)
    with ThreadingHTTPServer(("127.0.0.1", 0), Ailing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at_server = ["--config", str(config), f"mlflow.tracking_uri=http://127.0.0.1:{server.server_port}"]
        try:
            assert run_job(run_stream, [*at_server, f"storage.root={tmp_path / 'new'}"]) == TRY_AGAIN
            assert "MLflow does not answer at http://127.0.0.1" in capsys.readouterr().err
            assert run_job(run_stream, ["--config", str(config)]) == DONE
            for files in (2, 3):
                write_stream(folder, files=files, first=files - 1)
                assert run_job(run_stream, at_server) == DONE
                Ailing.hanging.set()
        finally:
            Ailing.over.set()
            server.shutdown()
    rows = ledger.read(tables, generation=0, after=-1)
    assert [(row.step.batch_id, row.events) for row in rows] == [(0, 120), (1, 120), (2, 120)]
    assert caplog.text.count("metrics of 1 batch did not reach MLflow") == 2
    assert "Traceback" not in capsys.readouterr().err + caplog.text
    write_stream(folder, files=4, first=3)
    assert run_job(run_stream, ["--config", str(config)]) == DONE
    settings = load_settings(config)
    client = connect(settings)
    (run,) = client.search_runs([experiment_id(client, settings)])
    sent = [metric.step for metric in client.get_metric_history(run.info.run_id, "events")]
    assert sorted(sent) == [0, 1, 2, 3], "what did not reach MLflow comes from the ledger"
