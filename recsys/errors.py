"""The errors a user of the project can meet. Jobs turn them into one line and an exit code: 2, or 75 to try again."""


class RecsysError(Exception):
    """Base of every error this project raises on purpose; its text is one line that says what to do next."""


class ConfigError(RecsysError):
    """A setting is unknown, of the wrong type or contradicts another; the text names the key."""


class InputError(RecsysError):
    """What the settings point at cannot be used: a missing path, an unreadable file, a table that does not fit."""


class RegistryError(RecsysError):
    """The model registry holds no such model, or refuses; see `RegistryDownError` for one that does not answer."""


class RegistryDownError(RegistryError):
    """MLflow did not answer, or failed; the same call may work later."""


class SolveError(RecsysError):
    """A least-squares system of the model could not be solved (not finite, or singular)."""
