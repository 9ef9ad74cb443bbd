"""A server of S3's interface on this machine, for tests: S3Proxy over a folder, from Maven.

It checks signatures, and puts under the condition that there is no such object are atomic, as in Amazon's service.
"""

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.tables.jars import S3_BUNDLE, s3_packages
from scripts import maven
from scripts.kafka_broker import free_ports

_S3PROXY = "4.1.0"
# Without the clients of the stores that it could stand before.
_WITHOUT = [
    *("com.azure", "com.microsoft.azure", "com.github.openstack4j.core", "com.github.openstack4j.core.connectors"),
    *("com.google.cloud", "com.google.api", "com.google.apis", "com.google.auth", "com.google.http-client"),
    *("com.google.api-client", "com.google.oauth-client", "com.google.api.grpc", "io.grpc", "io.opencensus"),
    *("com.github.java-json-tools", "com.squareup.okhttp3", "net.java.dev.jna", "com.fasterxml.jackson.datatype"),
]
_RESOLVED = {f"org.gaul:s3proxy:{_S3PROXY}": ",".join(f"{group}:*" for group in _WITHOUT)}
USER, PASSWORD, BUCKET = "reader", "canary-of-the-bucket", "bucket"
_START_SECONDS = 60

_SETTINGS = """\
s3proxy.endpoint={address}
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity={user}
s3proxy.credential={password}
s3proxy.ignore-unknown-headers=true
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir={folder}/data
"""
_QUIET = '<configuration><root level="off"/></configuration>'


class S3Server:
    """One server with one bucket, `bucket`; it can be killed and started again.

    Args:
        folder: for its settings and its objects.

    Attributes:
        address: its URL.
        variables: what clients need in the environment.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "data" / BUCKET).mkdir(parents=True)
        self.address = f"http://127.0.0.1:{free_ports(1)[0]}"
        self.variables = {
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "AWS_ENDPOINT_URL": self.address,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        settings = _SETTINGS.format(address=self.address, folder=folder, user=USER, password=PASSWORD)
        (folder / "s3proxy.properties").write_text(settings)
        (folder / "quiet.xml").write_text(_QUIET)

    def start(self) -> None:
        """Start it, and return once it answers."""
        options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        options += [f"-Dlogback.configurationFile={self._folder}/quiet.xml"]
        jars = maven.jars(f"s3proxy-{_S3PROXY}", _RESOLVED)
        words = ["-cp", f"{jars}/*", "org.gaul.s3proxy.Main", "--properties", f"{self._folder}/s3proxy.properties"]
        with (self._folder / "log").open("ab") as output:
            self._process = subprocess.Popen([maven.java(), *options, *words], stdout=output, stderr=output)
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"no S3: {(self._folder / 'log').read_text()[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a machine that fails would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def spark_settings(self) -> dict[str, str]:
        """Settings of Spark, whose client of S3 takes the address from nowhere else."""
        ours = {
            "endpoint": self.address,
            "endpoint.region": "us-east-1",
            "path.style.access": "true",
            "attempts.maximum": "1",
            "retry.limit": "1",
        }
        return {f"spark.hadoop.fs.s3a.{key}": value for key, value in ours.items()}

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.address, timeout=1)
        except urllib.error.HTTPError:
            return True  # Without a signature it refuses.
        except OSError:
            return False
        return True


def client_settings() -> dict[str, str]:
    """Settings of Spark that put its client of S3 on the class path."""
    packages = s3_packages()
    # First on the class path: what Spark has itself has to be its own.
    without = [S3_BUNDLE, "io.netty:*", "org.slf4j:*", "commons-codec:*", "commons-logging:*"]
    name = packages[0].replace(":", "-")
    return {"spark.driver.extraClassPath": f"{maven.jars(name, {','.join(packages): ','.join(without)})}/*"}


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """A server that runs while the context lasts."""
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
