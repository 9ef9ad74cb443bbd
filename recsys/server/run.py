"""The server as a process."""

import gc
import logging
import math
import signal
import socket
import sys

import uvicorn

from recsys.config import Settings
from recsys.errors import InputError
from recsys.server.app import application
from recsys.server.current import CurrentVersions
from recsys.server.figures import ServerFigures

logger = logging.getLogger(__name__)

# More at once, idle ones included, are answered with 503. Each may hold a body in memory.
_MOST_CONNECTIONS = 500
# How long a thread may hold Python's lock while others wait for it; by default ten times as long. What reads and writes
# requests shall not wait for what computes, or loads another version.
_SWITCH_SECONDS = 0.0005


def serve(settings: Settings) -> None:
    """Answer requests until a signal ends the process; requests that are being answered are finished.

    Raises:
        InputError: the address cannot be listened on.
        RegistryError: the champion, or the version of an arm, cannot be served, or the registry does not answer.
    """
    host, port, seconds = settings.serve.host, settings.serve.port, settings.serve.timeout_seconds
    with _listening(host, port) as listener:
        figures = ServerFigures()
        current = CurrentVersions(settings, figures)
        config = uvicorn.Config(
            application(current, settings.serve, figures),
            log_config=None,
            access_log=False,  # It would hold ids of users.
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=math.ceil(seconds),
        )
        with current.followed():
            logger.info("%s answers at http://%s:%d", current.now.champion.served.version.uri, host, port)
            for arm, answering in current.now.arms.items():
                logger.info("%s answers users of arm %s", answering.served.version.uri, arm)
            sys.setswitchinterval(_SWITCH_SECONDS)
            _spare_the_collector()
            # uvicorn sends itself the signal again when it has finished; that shall not end the job before it is done.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            uvicorn.Server(config).run([listener])


def _spare_the_collector() -> None:
    """Let Python's collector pass over what is there by now: libraries, above all.

    A full collection would walk through all of it, and stop every answer for a quarter of a second.
    """
    gc.collect()
    gc.freeze()


def _listening(host: str, port: int) -> socket.socket:
    """A socket that is bound, before anything takes long, but does not listen yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: else asyncio leaves Nagle's algorithm on, and answers wait 40 ms for an acknowledgment.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on serve.host {host}, serve.port {port} ({error.strerror or error}): set them to an "
            "address of this machine and a free port"
        ) from error
    return listener
