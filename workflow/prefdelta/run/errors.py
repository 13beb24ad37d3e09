"""The base of all errors whose message is meant for the person who runs the workflow."""

from pathlib import Path


class PrefdeltaError(Exception):
    """Bad input or a broken environment: the message says what is wrong, where, and what to do."""


class DamagedError(PrefdeltaError):
    """A file that a job made is not what it wrote. It is made again where the file at ``path`` is gone."""

    def __init__(self, message: str, path: Path | str) -> None:
        super().__init__(message)
        self.path = Path(path)


class ConfigError(PrefdeltaError):
    """The configuration, or a name in a request, is wrong: the message names it and the choices."""
