"""Real servers, as processes of their own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def mlflow_process(arguments: list[str], port: int, alive: str, log: Path, **environment: str) -> Iterator[str]:
    """Run `mlflow ARGUMENTS` until the block ends, then kill it with its children.

    Yields:
        Its address, once the page `alive` answers.
    """
    command = ["-m", "mlflow", *arguments, "--host", "127.0.0.1", "--port", str(port)]
    # MLflow starts its web server by name.
    path = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    with server_process(command, port, alive, log, **path, **environment) as address:
        yield address


@contextmanager
def server_process(
    arguments: list[str], port: int, alive: str, log: Path, ends: bool = False, **environment: str
) -> Iterator[str]:
    """The same for any server that is a Python program and listens on a port: `python ARGUMENTS`.

    With `ends`, it is told to end by SIGTERM, and has to do so with exit code 0.
    """
    command = [sys.executable, *arguments]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, env={**os.environ, **environment}
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(address + alive):
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
                pytest.fail(log.read_text())
        yield address
        if ends:
            process.terminate()
            assert process.wait(timeout=120) == 0, log.read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(page: str) -> bool:
    try:
        return requests.get(page, timeout=30).ok
    except requests.ConnectionError:
        return False
