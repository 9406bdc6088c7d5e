"""What the commands of the README leave in a working copy."""

import re
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_the_demo_writes_only_where_git_looks_away():
    ignored = {line.strip("/") for line in (TOP / ".gitignore").read_text().splitlines()}
    recipe = re.search(r"^demo:.*\n\t(.*)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    places = re.findall(r"--(?:folder|picture) (\S+)", recipe[1])
    assert len(places) == 2
    assert {place.split("/")[0] for place in places} <= ignored
