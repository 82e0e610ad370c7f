"""Recompute a folder of reference numbers and print how far off we are; exit status 1 if anything is.

    python scripts/check_parity.py FOLDER

`parity.py` says what the folder may hold.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evfi.errors import EvfiError
from parity import Check, check_folder


def main() -> int:
    parser = argparse.ArgumentParser(description="Recompute a folder of reference numbers and compare.")
    parser.add_argument("folder", type=Path, help="folder of reference numbers")
    arguments = parser.parse_args()
    checks = []
    print(f"{'item':<58} {'max error':>10} {'tolerance':>10}  {'':<7} note")
    try:
        for check in check_folder(arguments.folder):
            checks.append(check)
            print(_row(check), flush=True)
    except EvfiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    off = sum(not check.passed for check in checks)
    compared = sum(check.error is not None for check in checks)
    print(f"{compared} compared, {off} off, {sum(check.status == 'absent' for check in checks)} absent")
    return 0 if compared and not off else 1


def _row(check: Check) -> str:
    error = "-" if check.error is None else f"{check.error:.2e}"
    tolerance = "-" if check.tolerance is None else f"{check.tolerance:.0e}"
    return f"{check.item:<58} {error:>10} {tolerance:>10}  {check.status:<7} {check.note}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
