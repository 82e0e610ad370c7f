"""The exception tree: everything a user can cause and `evfi` can name.

    EvfiError
    ├── InputError        a file or folder cannot be read: missing, unknown format, corrupt, truncated
    ├── RecordingError    it was read, but cannot be used: too few frames, no events, no overlap in time
    ├── ConfigError       a setting is out of range, unknown, or contradicts another (also a ValueError)
    ├── ModelError        a model cannot be found, loaded, or does not fit its use
    ├── OutputError       a result cannot be written
    ├── JobCancelledError the job was cancelled; what is finished is kept
    └── ResourceError     not enough memory or no such device

A message is one line: what was expected, what was found, where, and what to do. What it quotes of files is escaped by
`escaped`, as is all that the command line prints.
"""

from __future__ import annotations

import errno
import unicodedata
from typing import Final

_SHORT_ESCAPES: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_JOINERS: Final = "\u200c\u200d"
"""Parts of words in some scripts, and of emoji."""


_ABOUT_MEMORY: Final[dict[str, tuple[str, ...]]] = {
    "out of memory": (),
    "allocate memory": (),
    "failed to map segment from shared object": ("not permitted",),
    "could not create a primitive": ("primitive descriptor",),
    "can't start new thread": (),
}
"""What libraries say when memory runs out, and what they add where it means something else."""


def escaped(text: str) -> str:
    r"""Text for a terminal, in one line: ``\x1b`` or ``\u202e`` in place of letters that it would obey or not show.

    That is of control characters, of line breaks, of those that turn the direction of text around, and of bytes in file names
    that are no text in the system's encoding (``\xff``).
    """
    return text if text.isprintable() else "".join(map(_escaped_letter, text))


def _escaped_letter(letter: str) -> str:
    if letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs":
        return letter
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python writes a byte that it cannot decode
        code -= 0xDC00
    form = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _SHORT_ESCAPES.get(letter, form)


def is_about_memory(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that memory ran out, in whatever library."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"} or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    if isinstance(error, RuntimeError | ImportError | OSError) and any(
        phrase in text and not any(other in text for other in others) for phrase, others in _ABOUT_MEMORY.items()
    ):
        return True
    before = error.__cause__ or error.__context__
    return before is not None and is_about_memory(before)


class EvfiError(Exception):
    """Base of every expected error; the command line prints it as one line without a traceback.

    Args:
        message: what to say; it may quote files, and is escaped.
    """

    def __init__(self, message: str = ""):
        super().__init__(escaped(message))


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


class JobCancelledError(EvfiError):
    """A job was cancelled, by this process or another; what is finished is kept."""


class ResourceError(EvfiError):
    """The machine lacks what the run needs: memory or a device."""
