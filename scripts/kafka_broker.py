"""A Kafka broker of one node on this machine, for tests and the demo: python -m scripts.kafka_broker TOPIC COMMAND.

Broker and jars come from Maven, through the Ivy that pyspark brings. COMMAND finds the broker's address in
`KAFKA_BOOTSTRAP_SERVERS`, and the broker ends with it.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pyspark
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from recsys.tables.jars import kafka_package
from scripts import maven

_KAFKA = "3.9.2"
# The connector of this Spark, without a part of it that not every mirror has in this version, and that part apart.
_TOKENS = "spark-token-provider-kafka-0-10_2.13"
# What to leave out, by what to download together.
_RESOLVED = {
    ",".join([f"org.apache.kafka:kafka_2.13:{_KAFKA}", "org.slf4j:slf4j-simple:2.0.17", kafka_package()]): (
        f"org.apache.spark:{_TOKENS}"
    ),
    f"org.apache.spark:{_TOKENS}:4.0.0": (
        "org.apache.hadoop:*,org.apache.kafka:*,org.lz4:*,org.slf4j:*,org.xerial.snappy:*"
    ),
}
_CONNECTOR = ("spark-sql-kafka", "spark-token-provider", "kafka-clients", "commons-pool2")
# Passwords by user of the listener that asks for one.
USERS = {"reader": "canary-of-the-reader"}
LARGEST_MESSAGE = 32 * 2**20
_START_SECONDS = 120

_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required {users};
log.dirs={folder}/data
# A broker that was killed may come back at once.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
message.max.bytes={largest}
"""


def jars() -> Path:
    """The folder with the jars of broker and connector; the first call downloads 40 MB."""
    return maven.jars(f"kafka-{_KAFKA}-spark-{metadata.version('pyspark')}", _RESOLVED)


def connector_settings() -> dict[str, str]:
    """Settings of Spark that put its Kafka connector on the class path."""
    found = [str(jar) for name in _CONNECTOR for jar in jars().glob(f"*{name}*.jar")]
    assert len(found) == len(_CONNECTOR), found
    return {"spark.driver.extraClassPath": os.pathsep.join(found)}


class Broker:
    """One node that is broker and controller; it can be killed and started again.

    Args:
        folder: for its settings, data and log; may exist from before.

    Attributes:
        servers: address of the listener without credentials.
        sasl_servers: address of the listener that asks for a user of `USERS` (SASL_PLAINTEXT, PLAIN).
        admin: a client that manages it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "broker.log"
        self._settings = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        plain, sasl, controller = free_ports(3)
        self.servers, self.sasl_servers = f"127.0.0.1:{plain}", f"127.0.0.1:{sasl}"
        users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
        text = _SETTINGS.format(
            plain=plain, sasl=sasl, controller=controller, users=users, folder=folder, largest=LARGEST_MESSAGE
        )
        self._settings.write_text(text)
        self.admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        self._run("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", str(self._settings)).wait()

    def start(self) -> None:
        """Start it, and return once it answers."""
        self._process = self._run("kafka.Kafka", str(self._settings))
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.admin.list_topics(timeout=1)
                return
            except KafkaException:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"no broker: {self._log.read_text()[-3000:]}") from None

    def kill(self) -> None:
        """End it at once, as a machine that fails would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def create(self, topic: str, partitions: int = 1) -> None:
        """Create a topic."""
        self.admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(timeout=30)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        scala = Path(pyspark.__file__).parent / "jars"
        path = os.pathsep.join([f"{jars()}/*", *map(str, scala.glob("scala-library-*.jar"))])
        options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        options += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        with self._log.open("ab") as output:
            # In a group of its own, so that a Ctrl-C reaches the command first.
            return subprocess.Popen(
                [maven.java(), *options, "-cp", path, program, *arguments],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


@contextmanager
def running(folder: Path) -> Iterator[Broker]:
    """A broker that runs while the context lasts."""
    broker = Broker(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


def free_ports(number: int) -> list[int]:
    """Ports that are free now; all are taken before one is given back, so that they differ."""
    taken = [socket.socket() for _ in range(number)]
    try:
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in taken]
    finally:
        for one in taken:
            one.close()


def main(topic: str, *command: str) -> int:
    """Run a command beside a broker with one topic; returns its exit code."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as broker:
        broker.create(topic)
        named = {
            f"RECSYS__{f'spark.{key}'.replace('.', '__').upper()}": value for key, value in connector_settings().items()
        }
        return subprocess.run(
            command, env={**os.environ, **named, "KAFKA_BOOTSTRAP_SERVERS": broker.servers}, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
