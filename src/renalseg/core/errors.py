"""Exceptions that a user can act on.

Every message is one sentence that says what is wrong, in which file, and what to do. The command line prints the
message and exits with the class's ``exit_code``; nothing else in the package catches them.
"""

from pathlib import Path


class RenalsegError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 2


class InputError(RenalsegError):
    """A file or folder that cannot be used: missing, damaged, not a CT volume."""


class GeometryError(InputError):
    """A voxel grid that has no usable geometry: shape, spacing or affine."""


class WeightsError(RenalsegError):
    """Weights that are missing, damaged, or do not fit their configuration."""


class ConfigError(RenalsegError):
    """A configuration that does not validate, or an unknown preset."""


class OutputError(RenalsegError):
    """A result that could not be written."""


def unforeseen(path: Path, problem: Exception) -> str:
    """The sentence for an error that nobody planned for, met while working on the file ``path``."""
    return f"{path}: {type(problem).__name__}: {problem}; please report this with the file's header"
