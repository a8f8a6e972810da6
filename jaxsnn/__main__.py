"""`python -m jaxsnn` is the command `jaxsnn`, where the folder of scripts is on no path."""

import sys

from jaxsnn.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
