"""Where the command `nirid` begins: our own packages come first, whatever PYTHONPATH brings along.

Module systems of clusters, and other software, set PYTHONPATH to libraries of their own (an older numpy, or
a package that is called `daemon` too), which would be taken for ours.
"""

import gc
import os
import sys


def main() -> None:
    """The entry point of the command."""
    gc.set_threshold(50_000, 20, 50)  # libraries make many objects and few cycles: 0.02 s of each start
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # else the next line may find another
    from daemon import guard

    guard.settle()
    from daemon.cli import main as command

    command()
