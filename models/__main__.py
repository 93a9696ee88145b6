"""`python -m models fetch NAME`."""

import sys

from .fetch import main

if __name__ == "__main__":
    if sys.argv[1:2] != ["fetch"]:
        sys.exit("usage: python -m models fetch NAME, or python -m models.NAME of a module (models/README.md)")
    main(sys.argv[2:])
