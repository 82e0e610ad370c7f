"""The exception tree: everything a user can cause and `evfi` can name.

    EvfiError
    ├── InputError        a file or folder cannot be read: missing, unknown format, corrupt, truncated
    ├── RecordingError    it was read, but cannot be used: too few frames, no events, no overlap in time
    ├── ConfigError       a setting is out of range, unknown, or contradicts another (also a ValueError)
    ├── ModelError        a model cannot be found, loaded, or does not fit its use
    ├── OutputError       a result cannot be written
    └── ResourceError     not enough memory or no such device

A message is one line: what was expected, what was found, where, and what to do.
"""

from __future__ import annotations


class EvfiError(Exception):
    """Base of every expected error; the command line prints it as one line without a traceback.

    Args:
        message: what to say. It may quote files: line breaks become blanks, and letters that cannot be shown become "�".
    """

    def __init__(self, message: str = ""):
        letters = (letter if letter.isprintable() else " " if letter.isspace() else "\ufffd" for letter in message)
        super().__init__("".join(letters))


class InputError(EvfiError):
    """A file or folder is missing, of an unknown format, corrupt or truncated."""


class RecordingError(EvfiError):
    """A recording was read, but cannot be interpolated as it is."""


class ConfigError(EvfiError, ValueError):
    """A setting is out of range, unknown, or contradicts another setting."""


class ModelError(EvfiError):
    """A model cannot be found or loaded, or does not fit what is asked of it."""


class OutputError(EvfiError):
    """A result cannot be written."""


class ResourceError(EvfiError):
    """The machine lacks what the run needs: memory or a device."""
