"""What the commands of the README leave in a working copy."""

import contextlib
import re
from pathlib import Path

import click

from daemon.cli import Settings, cli, main

TOP = Path(__file__).parents[3]


def test_the_demo_writes_only_where_git_looks_away():
    ignored = {line.strip("/") for line in (TOP / ".gitignore").read_text().splitlines()}
    recipe = re.search(r"^demo:.*\n\t(.*)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    places = re.findall(r"--(?:folder|picture) (\S+)", recipe[1])
    assert len(places) == 2
    assert {place.split("/")[0] for place in places} <= ignored


def tour():
    """The lines of the README's short tour that call nirid, as words."""
    text = (TOP / "README.md").read_text().partition("## A short tour")[2].partition("\n## ")[0]
    lines = [line.partition(" # ")[0] for line in text.splitlines() if line.startswith("    ")]
    calls = [re.search(r"\bnirid .*", part) for line in lines for part in line.split(";")]
    return [re.sub(r"\s*(2?> \w+|&)", "", call[0]).split()[1:] for call in calls if call]


def test_the_tour_names_commands_and_options_that_there_are():
    with contextlib.suppress(SystemExit):
        main(["--version"])  # adds the commands
    called = tour()
    assert len(called) > 12
    assert ["status", "--watch"] in called
    for name, *words in called:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        command.make_context(name, words, parent=click.Context(cli, obj=Settings()))
