"""`python -m jaxsnn`: the command `jaxsnn` where the folder of scripts is not on the PATH."""

import sys

from jaxsnn.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
