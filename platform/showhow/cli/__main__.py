"""`python -m showhow.cli` is the `showhow` command."""

import sys

from showhow.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
