"""Errors that users can fix. Jobs turn them into one line and an exit code: 2, or 75 to try again."""

import errno

# What a network, or a file system that is reached through one, answers while it is down.
_DOWN = {
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


class RecsysError(Exception):
    """Base class of all deliberate errors. The message is one line that says what to do next."""


class ConfigError(RecsysError):
    """A setting is unknown, has the wrong type or contradicts another one. The message names the key."""


class InputError(RecsysError):
    """Input that the settings name cannot be used: a missing path, an unreadable file, a table with other columns."""


class RegistryError(RecsysError):
    """The model registry has no such model, or refuses a call; see `RegistryDownError` for one that does not answer."""


class AlteredArtifactError(RegistryError):
    """The artifact of a version is not what was registered."""


class OutsideDownError(RecsysError):
    """Something outside does not work: the source, the storage or MLflow. The same call may work later."""


class RegistryDownError(RegistryError, OutsideDownError):
    """MLflow does not answer, or failed; the same call may work later."""


class LeaseError(OutsideDownError):
    """Another job writes the same tables, or has taken them over; the same call may work later."""


class BrokenFeedError(OutsideDownError):
    """The source delivers what cannot be used, or nothing; what it delivered is stored, and a new start goes on."""


class SolveError(RecsysError):
    """A least-squares system of the model cannot be solved: it is singular or not finite."""


class InputWarning(UserWarning):
    """Some rows of a frame of events were left out; the text says how many, and why."""


def is_outage(error: OSError) -> bool:
    """Whether the same call may work later: what failed is down or full, and not missing or forbidden."""
    return isinstance(error, ConnectionError | TimeoutError) or error.errno in _DOWN | _FULL


def is_forbidden(error: OSError) -> bool:
    """Whether a file system is read-only, or this user may not do that there."""
    return error.errno in _FORBIDDEN
