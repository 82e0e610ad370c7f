"""File types that are not supported, detected from their first bytes, each with what to do instead."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_JAER: Final = "export it as text (t x y p) with jAER, or as AEDAT4 with the DV software"
_PICTURE: Final = "this is a picture; give the event file, or the folder of the recording"
_ADVICE: Final = (
    (b"#!AER-DAT1", f"AEDAT 1 is not read; {_JAER}"),
    (b"#!AER-DAT2", f"AEDAT 2 is not read; {_JAER}"),
    (b"#!AER-DAT3", f"AEDAT 3 is not read; {_JAER}"),
    (b"MATLAB 5.0 MAT-file", "MATLAB files are not read; save x, y, t and p as .npz (scipy.io.loadmat reads them)"),
    (b"PAR1", "Parquet is not read; save its columns x, y, t and p as .npz or CSV"),
    (b"\x93NUMPY", "a single .npy array is not read; save x, y, t and p as members of an .npz"),
    (b"\x80\x04", "pickles are never read, since they can run code; save x, y, t and p as .npz"),
    (b"PK\x03\x04", "a zip archive without .npy members; unpack it and give the event file in it"),
    (b"\x1f\x8b", "compressed with gzip, without event lines in it; unpack it first (gunzip)"),
    (b"BZh", "compressed with bzip2; unpack it first (bunzip2)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first (unzstd)"),
    (b"\x89PNG", _PICTURE),
    (b"\xff\xd8\xff", _PICTURE),
)
_HEAD_BYTES: Final = 32


def advice_for(path: Path) -> str | None:
    """What to do with a file of a kind that is known and not read; None for others."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    return next((advice for magic, advice in _ADVICE if head.startswith(magic)), None)
