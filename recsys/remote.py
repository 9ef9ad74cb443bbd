"""Files in a store of objects, with what the jobs use of pathlib's interface.

An object is there whole or not at all: it appears when its upload ends, in place of the one of that name. What pathlib
does in several steps (a hidden file, then a rename) is therefore one upload here. Folders are only parts of names.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import InputError, OutsideDownError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:/")
# Stores that Spark, delta-rs and Arrow all know, by the scheme that Spark has for them, and Arrow's scheme.
STORES = {"s3a": "s3", "abfss": "abfss", "gs": "gs"}
# What clients report (Arrow, delta-rs, Hadoop): the first that is found counts.
_REPORTED = (
    (
        re.compile(
            r"NoSuchBucket|NO_SUCH_BUCKET|Bucket not found|bucket does not exist|ContainerNotFound", re.IGNORECASE
        ),
        InputError,
        "there is no such bucket: create it, or correct its name",
    ),
    (
        re.compile(
            r"InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|SIGNATURE_DOES_NOT_MATCH|AccessDenied"
            r"|ACCESS_DENIED|ExpiredToken|\b40[13] (?:Forbidden|Unauthorized)|HTTP response code (?:401|403)"
            r"|AuthenticationFailed|NoAuthWithAWSException|status code: 403",
            re.IGNORECASE,
        ),
        InputError,
        "the store refuses these credentials: correct them in the environment, and in Spark's settings if they are "
        "there, or let this user read, write and delete there",
    ),
    (
        re.compile(r"InsufficientStorage|QuotaExceeded|507 Insufficient"),
        OutsideDownError,
        "the store is full: free space, then start again",
    ),
    (
        re.compile(
            r"NETWORK_CONNECTION|Couldn't connect|Connection refused|Could not resolve host|timed? ?out|SlowDown"
            r"|error sending request|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|HTTP response code 50\d"
            r"|\b50[0234] (?:Internal|Bad|Service|Gateway)"
            r"|Connection reset|Unable to execute HTTP request",
            re.IGNORECASE,
        ),
        OutsideDownError,
        "the store does not answer: start again once it does, or correct its address",
    ),
)


def is_uri(root: str) -> bool:
    """Whether a root has a scheme, so that it is no folder of this machine."""
    return _SCHEME.match(root) is not None


def store_failure(text: str) -> InputError | OutsideDownError | None:
    """The error for people, from what a client of a store reports; None if the text says nothing of a store."""
    for pattern, kind, words in _REPORTED:
        if pattern.search(text):
            return kind(words)
    return None


@cache
def _opened(root: str) -> "tuple[FileSystem, str]":
    """Arrow's file system, and the path in it, of a bucket; credentials come from the environment."""
    from pyarrow.fs import FileSystem

    scheme, _, rest = root.partition("://")
    system, path = FileSystem.from_uri(f"{STORES[scheme]}://{rest}")
    return system, path


class RemotePath:
    """A file or a folder in a store of objects.

    Args:
        uri: with a scheme of `STORES`, without a slash at its end.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self._uri}/{name}")

    def __str__(self) -> str:
        return self._uri

    def __repr__(self) -> str:
        return f"RemotePath({self._uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and other._uri == self._uri

    def __hash__(self) -> int:
        return hash(self._uri)

    def as_posix(self) -> str:
        """The URI."""
        return self._uri

    @property
    def name(self) -> str:
        """Last part of the URI."""
        return self._uri.rpartition("/")[2]

    def exists(self) -> bool:
        """Whether there is such a file, or a file in such a folder."""
        return self._kind() != "NotFound"

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self._kind() == "Directory"

    def iterdir(self) -> "Iterator[RemotePath]":
        """Entries of a folder in the order of their names; none where there is no such folder."""
        from pyarrow.fs import FileSelector

        with self._failures() as (system, path):
            found = system.get_file_info(FileSelector(path, allow_not_found=True))
        return iter([self / name for name in sorted(entry.base_name for entry in found)])

    def glob(self, pattern: str) -> "Iterator[RemotePath]":
        """Entries of a folder whose names fit a pattern."""
        return (entry for entry in self.iterdir() if fnmatch(entry.name, pattern))

    def files(self) -> list[str]:
        """Names of all files in a folder and the folders in it, relative to it."""
        from pyarrow.fs import FileSelector

        with self._failures() as (system, path):
            found = system.get_file_info(FileSelector(path, allow_not_found=True, recursive=True))
        return [entry.path.removeprefix(f"{path}/") for entry in found if entry.is_file]

    def read_text(self, encoding: str) -> str:
        """The whole file.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._failures() as (system, path), system.open_input_stream(path) as file:
            return bytes(file.readall()).decode(encoding)

    def download(self, to: Path) -> None:
        """Write the whole file to a file of this machine.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._failures() as (system, path), system.open_input_stream(path) as file, to.open("wb") as written:
            while part := file.read(2**24):
                written.write(part)

    def upload(self, file: Path) -> None:
        """Put a file of this machine in this place, as a whole."""
        import pyarrow as pa

        # In one call: what is closed after half of it would be an object, too.
        with (
            pa.memory_map(str(file)) as content,
            self._failures() as (system, path),
            system.open_output_stream(path) as written,
        ):
            written.write(content.read_buffer())

    def remove(self) -> None:
        """Remove a file, or a folder with all that is in it; none is fine, too."""
        with self._failures() as (system, path):
            match self._kind():
                case "Directory":
                    system.delete_dir(path)
                case "File":
                    system.delete_file(path)

    def refuse_unusable(self) -> None:
        """Ask the store for it before any work is done.

        Raises:
            InputError: there is no such bucket, or the store refuses the credentials.
            OutsideDownError: the store does not answer.
        """
        if not any(self.iterdir()) and not RemotePath("/".join(self._uri.split("/")[:3])).exists():
            raise InputError(f"{self._uri}: there is no such bucket: create it, or correct storage.root")

    def _kind(self) -> str:
        with self._failures() as (system, path):
            (found,) = system.get_file_info([path])
        return str(found.type.name)

    @contextmanager
    def _failures(self) -> "Iterator[tuple[FileSystem, str]]":
        """The file system, and the path in it; what it raises becomes a line for people.

        Raises:
            InputError: there is no such bucket, or the store refuses the credentials.
            OutsideDownError: the store does not answer.
        """
        scheme, _, rest = self._uri.partition("://")
        bucket, _, key = rest.partition("/")
        try:
            system, top = _opened(f"{scheme}://{bucket}")
            yield system, f"{top}/{key}" if key else top
        except FileNotFoundError:
            raise
        except OSError as error:
            explained = store_failure(str(error))
            if explained is None:
                raise
            raise type(explained)(f"{self._uri}: {explained}") from error
