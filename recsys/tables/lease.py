"""The lease of the tables: one job at a time writes them, on whatever host it runs.

The table `writers` has one row: who holds the lease, and when it last gave a sign of life. A holder that is dead is
followed by the next one, which gets a greater token. On a path, every commit carries the token, so a writer that was
only slow, and has lost its lease, cannot commit any more (Kleppmann 2016, "How to do distributed locking": fencing). In
a catalog a commit cannot carry it: there, a writer asks for its lease before each commit, and a takeover within that
commit goes unseen.

Under a root in a store of objects, which has no locks, the table `upkeep` is such a lease, too: that of the jobs that
run beside a writer.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from recsys.config.sections import Storage
from recsys.contracts import UPKEEP, UPKEEP_SCHEMA, WRITERS
from recsys.errors import LeaseError
from recsys.remote import is_uri
from recsys.storage import upkeep_lock
from recsys.tables.delta import Fence, Tables
from recsys.tables.failures import TABLE_FAILURES

logger = logging.getLogger(__name__)

_TIME = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Holder:
    """A row of `writers`.

    Attributes:
        token: counts the holders; revision: counts the changes of the row.
        job: name of the job; host, process: where it runs.
        since: when it took the lease; renewed_at: its last sign of life (UTC).
        lease_seconds: how long it may be silent; released: whether it has ended.
    """

    token: int
    revision: int
    job: str
    host: str
    process: int
    since: datetime
    renewed_at: datetime
    lease_seconds: int
    released: bool = False

    def is_gone(self, now: datetime) -> bool:
        """Whether the lease is free: released, expired, or held by a process of this host that has ended."""
        expired = now - self.renewed_at >= timedelta(seconds=self.lease_seconds)
        here = self.host == socket.gethostname()
        return self.released or expired or (here and (self.process == os.getpid() or not _runs(self.process)))


_ROW = pa.schema(
    {
        **dict.fromkeys(("token", "revision"), pa.int64()),
        **dict.fromkeys(("job", "host"), pa.string()),
        "process": pa.int64(),
        **dict.fromkeys(("since", "renewed_at"), _TIME),
        "lease_seconds": pa.int64(),
        "released": pa.bool_(),
    }
)


@contextmanager
def held(tables: Tables, job: str, seconds: int, name: str = WRITERS) -> Iterator[None]:
    """Hold a lease, renewed in the background; with that of the writers, let `tables` write with its token.

    Args:
        tables: the tables; they exist.
        job: name of the job, for others to read.
        seconds: how long this job may be silent before another one may take over.
        name: the table of the lease: `writers` or `upkeep`.

    Raises:
        LeaseError: another job holds it; or, in a commit within, another one has taken it over.
    """
    lease = Lease(tables, take(tables, job, seconds, name), name)
    if name == WRITERS:
        tables.fence = Fence(lease.holder.token, lease.check)
    ended = threading.Event()
    heartbeat = threading.Thread(target=lease.renew_until, args=(ended,), name="lease", daemon=True)
    heartbeat.start()
    try:
        yield
    finally:
        ended.set()
        heartbeat.join()
        if name == WRITERS:
            tables.fence = None
        lease.release()


@contextmanager
def upkeep(tables: Tables, storage: Storage, job: str) -> Iterator[None]:
    """Let one job of upkeep at a time work, beside the job that writes.

    Args:
        tables: the tables.
        storage: where they are; in a store of objects a lease takes the place of the lock.
        job: name of the job, for others to read.

    Raises:
        InputError: another one holds the lock, or the storage cannot be used.
        LeaseError: another one holds the lease.
    """
    with upkeep_lock(storage.root), ExitStack() as holding:
        if is_uri(storage.root):
            tables.create_missing({UPKEEP: UPKEEP_SCHEMA})
            holding.enter_context(held(tables, job, storage.lease_seconds, UPKEEP))
        yield


def take(tables: Tables, job: str, seconds: int, name: str = WRITERS) -> Holder:
    """Take a lease if it is free; with that of the writers, shut out whoever held it before.

    Raises:
        LeaseError: it is not free.
    """
    now = datetime.now(UTC)
    present = current(tables, name)
    if present is not None and not present.is_gone(now):
        raise LeaseError(
            f"{present.job} on host {present.host} (process {present.process}, since {present.since:%Y-%m-%d %H:%M:%S} "
            f"UTC) writes these tables: wait for its end, or stop it; {present.lease_seconds} s after its last sign of "
            f"life ({present.renewed_at:%H:%M:%S} UTC) they are free"
        )
    token, revision = (1, 1) if present is None else (present.token + 1, present.revision + 1)
    holder = Holder(token, revision, job, socket.gethostname(), os.getpid(), now, now, seconds)
    if not tables.replace(name, _rows(holder), revision):
        raise LeaseError(f"another job has begun to write {tables.location(name)} at the same time: try again later")
    if name == WRITERS:
        tables.set_token(token)
    return holder


def current(tables: Tables, name: str = WRITERS) -> Holder | None:
    """The last holder; None if there was none yet."""
    return next((Holder(**row) for row in tables.rows(name, _ROW.names).to_pylist()), None)


class Lease:
    """The lease that this process holds.

    Args:
        tables: the tables.
        holder: from `take`.
        name: the table of the lease.
    """

    def __init__(self, tables: Tables, holder: Holder, name: str = WRITERS) -> None:
        self.holder = holder
        self._tables = tables
        self._name = name
        self._lock = threading.Lock()
        self._renewed = time.monotonic()
        self._lost = False

    def check(self) -> None:
        """Make sure that the lease is held.

        Raises:
            LeaseError: another job has taken it over.
        """
        if time.monotonic() - self._renewed >= self.holder.lease_seconds:
            self._write(released=False)
        if self._lost:
            raise LeaseError(
                f"another job has taken over {self._tables.location(self._name)}, and this one stops: start it again "
                "later"
            )

    def renew_until(self, ended: threading.Event) -> None:
        """Renew the lease three times in its duration, until it is lost or `ended` is set."""
        while not self._lost and not ended.wait(self.holder.lease_seconds / 3):
            try:
                self._write(released=False)
            except TABLE_FAILURES as error:
                logger.warning("the lease could not be renewed, the next try follows: %s", error)
        if self._lost:
            logger.error("another job has taken over the tables: the next batch will fail")

    def release(self) -> None:
        """Let the next job begin at once."""
        try:
            if not self._lost:
                self._write(released=True)
        except TABLE_FAILURES as error:
            logger.warning(
                "the lease could not be released: it is free after %d s: %s", self.holder.lease_seconds, error
            )

    def _write(self, released: bool) -> None:
        with self._lock:
            now, begun = datetime.now(UTC), time.monotonic()
            changed = replace(self.holder, revision=self.holder.revision + 1, renewed_at=now, released=released)
            if self._tables.replace(self._name, _rows(changed), changed.revision):
                self.holder, self._renewed = changed, begun
            else:
                self._lost = True


def _rows(holder: Holder) -> pa.Table:
    return pa.Table.from_pylist([asdict(holder)], _ROW)


def _runs(process: int) -> bool:
    """Whether a process of this host runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
