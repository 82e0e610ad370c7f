"""`python -m evfi` is `evfi`."""

import sys

from evfi.cli import main

if __name__ == "__main__":
    sys.exit(main())
