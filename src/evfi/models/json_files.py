"""The JSON files of model folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from evfi.errors import ModelError
from evfi.strict_json import parse_json, read_text, shown

_MAX_JSON_BYTES: Final = 2**22


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, within limits of size and depth.

    Raises:
        ModelError: the file is missing or too large, or holds no JSON object.
    """
    what = "model file"
    value = parse_json(read_text(path, _MAX_JSON_BYTES, what, ModelError), str(path), what, ModelError)
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a {what} with a JSON object, found {shown(value)}; fetch it again")
    return value
