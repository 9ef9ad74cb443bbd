"""The errors a user of the project can meet. Jobs turn them into one line and exit code 2."""


class RecsysError(Exception):
    """Base of every error this project raises on purpose; its text is one line that says what to do next."""


class ConfigError(RecsysError):
    """A setting is unknown, of the wrong type or contradicts another; the text names the key."""


class InputError(RecsysError):
    """What the settings point at cannot be used: a missing path, an unreadable file, a table that does not fit."""


class RegistryError(RecsysError):
    """The MLflow tracking server or model registry did not answer, or holds no such model."""


class SolveError(RecsysError):
    """A least-squares system of the model could not be solved (not finite, or singular)."""


class InputWarning(UserWarning):
    """Some rows of a frame of events were left out; the text says how many, and why."""
