"""A stream that reads Kafka: a real broker, its failures, and what is left of a batch after a kill."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions
from prometheus_client.parser import text_string_to_metric_families
from pyspark.sql import SparkSession

from recsys.cli import BAD_INPUT, DONE, TRY_AGAIN, run_job
from recsys.config import Settings, load_settings
from recsys.contracts import QUARANTINE, StepId
from recsys.storage import checkpoint_folder
from recsys.stream.job import run_stream
from recsys.tables import ledger
from recsys.tables.delta import Tables
from scripts.kafka_broker import LARGEST_MESSAGE, USERS, Broker, connector_settings
from tests.fire import jobs
from tests.fire.compare import Difference, compare
from tests.fire.jobs import Fault
from tests.registry.processes import free_port
from tests.stream.checks import MakeSettings, steps, totals_of_log
from tests.stream.disturbed import write_config, write_event_files
from tests.streams import records, write_lines

pytestmark = pytest.mark.mlflow

# A broker that is gone is given up after seconds.
SOON = {
    "kafka.default.api.timeout.ms": "3000",
    "kafka.request.timeout.ms": "2000",
    "kafkaConsumer.pollTimeoutMs": "5000",
    "fetchOffset.numRetries": "1",
}
SCRAPES = 5_000  # Spark reports a batch some time after its end.


def send(
    broker: Broker, topic: str, values: list[bytes | None], partition: int = 0, keys: list[str] | None = None
) -> None:
    producer = Producer({"bootstrap.servers": broker.servers, "message.max.bytes": LARGEST_MESSAGE, "log_level": 0})
    for value, key in zip(values, keys or [None] * len(values), strict=True):
        producer.produce(topic, value, key, partition=partition)
    assert producer.flush(30) == 0


def as_values(batch: list[dict[str, Any]]) -> list[bytes | None]:
    return [json.dumps(record).encode() for record in batch]


def received(broker: Broker, topic: str, number: int) -> list[tuple[bytes | None, dict[str, bytes]]]:
    """Values and headers of the first records of a topic."""
    consumer = Consumer({"bootstrap.servers": broker.servers, "group.id": "test", "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = []
    while len(found) < number:
        message = consumer.poll(30)
        assert message is not None
        assert message.error() is None
        found.append((message.value(), dict(message.headers())))
    consumer.close()
    return found


def config_file(made: Settings, folder: Path) -> Path:
    file = folder / "stream.yaml"
    file.write_text(yaml.safe_dump(made.model_dump(mode="json", by_alias=True)))
    return file


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


@pytest.mark.process
def test_topics_give_what_files_give_and_say_no_secret(
    spark: SparkSession,
    broker: Broker,
    ready: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    from jobs.replay_events import replay_events

    (user, password), batches = next(iter(USERS.items())), list(records(4))
    monkeypatch.setenv("KAFKA_PASSWORD", password)
    pd.DataFrame(batches[0] + batches[1]).to_parquet(tmp_path / "history.parquet")
    bad: list[bytes | None] = [None, b"no json", b"", b'{"user_id": "\xff", "item_id": "i"}', b"{} {}"]
    for topic, partitions in {"events": 1, "late": 1, "dead": 1}.items():
        broker.create(topic, partitions)
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    made = ready(
        tmp_path,
        source={
            "format": "kafka",
            "topics": ["events", "late"],
            "max_records_per_batch": 200,
            "options": {
                "kafka.bootstrap.servers": broker.sasl_servers,
                "kafka.security.protocol": "SASL_PLAINTEXT",
                "kafka.sasl.mechanism": "PLAIN",
                "kafka.sasl.jaas.config": f'{module} required username="{user}" password="${{oc.env:KAFKA_PASSWORD}}";',
            },
        },
        weights={"view": 1, "purchase": 3},
        quarantine={"dead_letter_topic": "dead"},
        replay={"dataset": str(tmp_path / "history.parquet"), "events_per_file": 100},
        recommend={"k": 5},
        monitoring={"port": free_port()},
    )
    config = config_file(made, tmp_path)
    behind: list[float] = []

    def look(stage: str, step: StepId) -> None:
        if stage != "batch" or step.batch_id == 0 or behind:
            return
        for _ in range(SCRAPES):
            page = requests.get(f"http://127.0.0.1:{made.monitoring.port}/metrics", timeout=30).text
            found = {one.name: one.value for family in text_string_to_metric_families(page) for one in family.samples}
            if found["recsys_source_lag_records"] == found["recsys_source_lag_records"]:
                behind.append(found["recsys_source_lag_records"])
                return

    def stream() -> int:
        return run_job(lambda settings: run_stream(settings, observe=look), ["--config", str(config)])

    assert run_job(lambda settings: replay_events(settings, to="kafka"), ["--config", str(config)]) == DONE
    send(broker, "late", [*as_values(batches[0][:7]), *bad])
    assert stream() == DONE
    rows = ledger.read(Tables(spark, made.storage), generation=0, after=-1)
    assert len(rows) == 2
    assert behind == [53], "of 252 records, each topic's share of 200 is read, rounded down"

    broker.admin.create_partitions([NewPartitions("late", 2)])["late"].result(timeout=30)
    send(broker, "late", as_values(batches[2]), partition=1)
    send(broker, "late", as_values(batches[3]))
    huge = json.dumps({**batches[0][0], "user_id": "x" * 20_000_000}).encode()
    send(broker, "events", [huge])
    assert stream() == DONE
    printed = capfd.readouterr()

    files = ready(tmp_path / "files", weights={"view": 1, "purchase": 3}, recommend={"k": 5})
    lines = [[json.dumps(record) for record in batch] for batch in batches]
    write_lines(Path(files.source.path), 0, [*lines[0], *lines[1], *lines[0][:7], *lines[2], *lines[3]])
    run_stream(files)
    tables, of_files = Tables(spark, made.storage), Tables(spark, files.storage)
    assert set(totals_of_log(tables).collect()) == set(totals_of_log(of_files).collect())
    assert steps(tables) == [(0, number) for number in range(len(steps(tables)))]
    rows = ledger.read(tables, generation=0, after=-1)
    assert sum(row.events for row in rows) == 480
    rejected = [(row.raw, "\n".join(row.reasons)) for row in tables.read(QUARANTINE).collect()]
    reasons = Counter(reason for _, reason in rejected)
    assert reasons == {"no value": 1, "not JSON": 3, reasons_of_broken_id(rejected): 1, "user_id is too long": 1}
    letters = received(broker, "dead", len(rejected))
    found = [(None if value is None else value.decode(), headers["reasons"].decode()) for value, headers in letters]
    assert Counter(found) == Counter(rejected)
    assert {headers["step"] for _, headers in letters} <= {str(row.step).encode() for row in rows}

    kept = b"".join(file.read_bytes() for file in Path(made.storage.root).rglob("*") if file.is_file())
    assert password.encode() not in kept + (printed.out + printed.err + caplog.text).encode()
    assert b"PlainLoginModule" not in kept


def reasons_of_broken_id(rejected: list[tuple[str, str]]) -> str:
    """All that is wrong with the record whose id is no text."""
    return next(reason for raw, reason in rejected if raw and "\ufffd" in raw)


@pytest.mark.process
def test_a_killed_stream_leaves_what_an_undisturbed_one_leaves(
    spark: SparkSession, broker: Broker, tmp_path: Path
) -> None:
    write_event_files(tmp_path / "events", files=3)
    broker.create("slice", 2)
    for number, file in enumerate(sorted((tmp_path / "events").iterdir())):
        send(broker, "slice", list(file.read_bytes().splitlines()), partition=number % 2)
    configs = {}
    for name in ("disturbed", "undisturbed"):
        config = write_config(tmp_path, name)
        values = yaml.safe_load(config.read_text())
        options = {"kafka.bootstrap.servers": broker.servers}
        values["source"] = {"format": "kafka", "topics": ["slice"], "max_records_per_batch": 150, "options": options}
        values["spark"] |= connector_settings()
        config.write_text(yaml.safe_dump(values))
        configs[name] = config
    for fault in (Fault("after quarantine: append", 1), Fault("before model_updates: append", 0)):
        assert jobs.end(jobs.start("stream_update", configs["disturbed"], fault), configs["disturbed"]) < 0
    disturbed, undisturbed = (load_settings(config) for config in configs.values())
    run_stream(disturbed)
    run_stream(undisturbed)
    assert compare(disturbed, undisturbed) == Difference()


@pytest.mark.process
def test_a_broker_that_dies_in_mid_stream_is_waited_for(
    spark: SparkSession, broker: Broker, ready: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Broker(tmp_path / "own")
    made = ready(
        tmp_path,
        source={
            "format": "kafka",
            "topics": ["events"],
            "max_records_per_batch": 120,
            "columns": {"user_id": "_key"},
            "options": {"kafka.bootstrap.servers": own.servers, **SOON},
        },
        weights={"view": 1, "purchase": 3},
    )
    words = ["--config", str(config_file(made, tmp_path))]

    def die(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) == ("batch", 1):
            own.kill()

    try:
        own.start()
        own.create("events")
        for batch in records(5):
            keys = [record.pop("user_id") for record in batch]
            send(own, "events", as_values(batch), keys=keys)
        assert run_job(lambda settings: run_stream(settings, observe=die), words) == TRY_AGAIN
        (line,) = [line for line in errors(capsys) if line.startswith("error: ")]
        assert "kafka.bootstrap.servers" in line
        assert run_job(run_stream, words) == TRY_AGAIN
        own.start()
        assert run_job(run_stream, words) == DONE
    finally:
        own.kill()
    rows = ledger.read(Tables(spark, made.storage), generation=0, after=-1)
    assert [(row.step.batch_id, row.events) for row in rows] == [(number, 120) for number in range(5)]
    assert rows[0].users == len({record["user_id"] for record in next(records(1))})


def test_what_cannot_be_read_is_refused_in_one_line_before_anything_is_written(
    spark: SparkSession, broker: Broker, settings: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.create("short")
    batches = list(records(2))
    send(broker, "short", as_values(batches[0]))
    options = {"kafka.bootstrap.servers": broker.servers, **SOON}
    source = {"format": "kafka", "topics": ["short"], "max_records_per_batch": 60}
    made = settings(tmp_path, source={**source, "options": options}, weights={"view": 1, "purchase": 3})
    login = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="reader" password="canary";'
    wrong_user = {
        "kafka.bootstrap.servers": broker.sasl_servers,
        "kafka.security.protocol": "SASL_PLAINTEXT",
        "kafka.sasl.mechanism": "PLAIN",
        "kafka.sasl.jaas.config": login,
    }
    refused: list[tuple[dict[str, Any], int, str]] = [
        ({"topics": ["short", "missing"]}, BAD_INPUT, "source.topics missing: there is no such topic"),
        (
            {"options": {**options, "kafka.bootstrap.servers": f"127.0.0.1:{free_port()}"}},
            TRY_AGAIN,
            "no broker answers",
        ),
        ({"options": {**options, **wrong_user}}, BAD_INPUT, "kafka.sasl.* or kafka.ssl.* in source.options"),
        ({"options": {**options, **wrong_user, "kafka.sasl.jaas.config": "canary"}}, BAD_INPUT, "with these source.op"),
        ({"options": {}}, BAD_INPUT, "source.options has no 'kafka.bootstrap.servers'"),
        ({"options": {**options, "subscribe": "short"}}, BAD_INPUT, "source.options.subscribe cannot be set"),
    ]
    for number, (given, code, words) in enumerate(refused):
        changed = made.source.model_copy(update=given)
        root = made.storage.model_copy(update={"root": str(tmp_path / f"refused-{number}")})
        file = config_file(made.model_copy(update={"source": changed, "storage": root}), tmp_path)
        capsys.readouterr()
        assert run_job(run_stream, ["--config", str(file)]) == code
        printed = errors(capsys)
        assert (len(printed), words in printed[0], "canary" in printed[0]) == (1, True, False), printed
        assert not (Path(root.root) / "tables").exists()
        assert not checkpoint_folder(root.root).exists()
    letters = made.model_copy(update={"quarantine": made.quarantine.model_copy(update={"dead_letter_topic": "no"})})
    assert run_job(run_stream, ["--config", str(config_file(letters, tmp_path))]) == BAD_INPUT
    assert "quarantine.dead_letter_topic no: there is no such topic" in errors(capsys)[0]

    words = ["--config", str(config_file(made, tmp_path))]
    assert run_job(run_stream, words) == DONE
    send(broker, "short", as_values(batches[1]))
    for done in broker.admin.delete_records([TopicPartition("short", 0, 200)]).values():
        done.result(timeout=30)
    capsys.readouterr()
    for _ in range(2):
        assert run_job(run_stream, words) == BAD_INPUT
        (line,) = [line for line in errors(capsys) if line.startswith("error: ")]
        assert "offset [120, 180) for topic partition short-0" in line
        assert "source.options.failOnDataLoss=false" in line
    tables = Tables(spark, made.storage)
    assert steps(tables) == [(0, 0), (0, 1)]
    assert run_job(run_stream, [*words, "source.topics=[other]"]) == BAD_INPUT
    assert "source.topics has no 'short'" in errors(capsys)[0]
    assert run_job(run_stream, [*words, "source.options.failOnDataLoss=false"]) == DONE
    assert sum(row.events for row in ledger.read(tables, generation=0, after=-1)) == 160
    send(broker, "short", as_values(batches[0]))
    assert run_job(run_stream, words) == DONE, "the lenient run is over"


def test_the_demo_has_a_broker_beside_it() -> None:
    """Started as `make demo-kafka` starts it; it ends with the command."""
    root = Path(__file__).parents[2]
    (line,) = [line for line in (root / "Makefile").read_text("utf-8").splitlines() if "kafka_broker" in line]
    _, *begin = line.partition(" purchases ")[0].split()
    tell = "import os; print('broker at', os.environ['KAFKA_BOOTSTRAP_SERVERS'])"
    command = [sys.executable, *begin, "purchases", sys.executable, "-c", tell]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "broker at 127.0.0.1:" in done.stdout
