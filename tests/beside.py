"""A command beside a daemon of the tests, whose state folder holds its products."""

from dataclasses import replace

from daemon.config.load import load
from daemon.config.options import State


class Settings:
    """What a command gets from its global options."""

    state, verbose = None, False

    def __init__(self, folder):
        given = {"watch.folders": [str(folder / "drop")], "state.folder": str(folder / "s")}
        self.config = replace(load(None, given), state=State(str(folder)))

    def load(self):
        return self.config
