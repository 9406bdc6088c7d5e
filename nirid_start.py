"""Where the command `nirid` begins: our own packages come first, whatever PYTHONPATH brings along.

Module systems of clusters, and other software, set PYTHONPATH to libraries of their own (an older numpy, or
a package that is called `daemon` too), which would be taken for ours.
"""

import os
import sys


def main() -> None:
    """The entry point of the command."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # else the next line may find another
    from daemon import guard

    guard.settle()
    from daemon.cli import main as command

    command()
