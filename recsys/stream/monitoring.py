"""Serves the figures of a running stream at `/metrics`, and its health at `/healthz`, on one port."""

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from recsys.config import Settings
from recsys.errors import ConfigError, InputError
from recsys.stream.watch import StreamWatch

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from recsys.stream.metrics import Metrics


@contextmanager
def watched(settings: Settings) -> Iterator[StreamWatch]:
    """What a stream tells of itself, served while the context lasts if `monitoring.port` is set.

    Raises:
        ConfigError: prometheus_client is not installed.
        InputError: the address cannot be listened on.
    """
    host, port = settings.monitoring.host, settings.monitoring.port
    if port is None:
        yield StreamWatch()
        return
    try:
        from prometheus_client.exposition import ThreadingWSGIServer

        from recsys.stream.metrics import Metrics
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"monitoring.port needs {error.name}: pip install 'recsys-stream[spark]', or set it to null"
        ) from error
    metrics = Metrics(settings)
    try:
        server = make_server(host, port, application(metrics), ThreadingWSGIServer, _QuietHandler)
    except OSError as error:
        raise InputError(
            f"cannot listen on monitoring.host {host}, monitoring.port {port} ({error.strerror or error}): set them to "
            f"an address of this machine and a free port"
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="monitoring", daemon=True)
    thread.start()
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def application(metrics: "Metrics") -> "WSGIApplication":
    """The two pages."""
    from prometheus_client import make_wsgi_app

    figures: WSGIApplication = make_wsgi_app(metrics.registry)

    def answer(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        page = environ.get("PATH_INFO")
        if page == "/metrics":
            return figures(environ, start)
        if page != "/healthz":
            return _send(start, HTTPStatus.NOT_FOUND, {"pages": ["/metrics", "/healthz"]})
        health = metrics.health()
        body = {
            "healthy": health.healthy,
            "seconds_since_commit": health.since_commit,
            "seconds_since_progress": health.seconds,
            "expected_seconds": health.expected,
        }
        return _send(start, HTTPStatus.OK if health.healthy else HTTPStatus.SERVICE_UNAVAILABLE, body)

    return answer


def _send(start: "StartResponse", status: HTTPStatus, body: object) -> Iterable[bytes]:
    start(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]


class _QuietHandler(WSGIRequestHandler):
    """A line per scrape would fill the log."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to do."""
