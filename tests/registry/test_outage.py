"""A tracking server that goes away and comes back."""

import pytest

from recsys.contracts import StepId
from recsys.errors import RegistryError
from recsys.registry import artifacts, versions
from recsys.registry.client import connect
from recsys.registry.runs import GenerationRun
from recsys.serving import Served
from tests.registry.processes import free_port, mlflow_process
from tests.registry.served import served_arrays
from tests.registry.test_runs import logged, row


@pytest.mark.heavy
def test_an_outage_loses_nothing_and_doubles_nothing(registry, database, tmp_path):
    _, local = registry
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    settings = local.model_copy(update={"mlflow": local.mlflow.model_copy(update={"tracking_uri": address})})
    arguments = ["server", "--backend-store-uri", f"sqlite:///{database}/mlflow.db", "--workers", "1"]
    arguments += ["--artifacts-destination", str(tmp_path / "artifacts")]
    plot = tmp_path / "quality.png"
    plot.write_bytes(b"picture")
    arrays = served_arrays(["ann"], ["tea"])

    with mlflow_process(arguments, port, "/health", tmp_path / "server.log"):
        client = connect(settings)
        run = GenerationRun.open(client, settings, 0, "stream")
        assert run.send([row(batch) for batch in range(3)])
        before = versions.register(client, settings, run.run_id, Served.of_packed(arrays), StepId(0, 2), {})

    assert not run.send([row(3)])
    assert run.error is not None
    run.log_plot(plot)
    assert run.error
    assert not run.send([row(4)])
    assert [waiting.step.batch_id for waiting in run.pending] == [3, 4]
    with pytest.raises(RegistryError, match="cannot register a version"):
        versions.register(client, settings, run.run_id, Served.of_packed(arrays), StepId(0, 4), {})
    assert not run.close()
    with pytest.raises(RegistryError, match=f"MLflow does not answer at {address}"):
        connect(settings)

    with mlflow_process(arguments, port, "/health", tmp_path / "server.log"):
        after = versions.register(client, settings, run.run_id, Served.of_packed(arrays), StepId(0, 4), {})
        assert run.close()
        run.log_plot(plot)
        assert run.error is None
        assert run.error is None
        again = GenerationRun.open(client, settings, 0, "stream")
        assert (again.run_id, again.last_sent) == (run.run_id, 4)
        assert again.send([row(batch) for batch in range(6)])
        assert logged(client, run) == [(batch, batch / 100) for batch in range(6)]
        assert [before.version, after.version] == ["1", "2"]
        assert artifacts.load_served(after.uri, after.digest).packed().keys() == arrays.keys()
