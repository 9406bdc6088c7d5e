"""The runbook and the README: what is to be typed is understood, and every alarm has its line."""

import os
import re
import shlex
from pathlib import Path

import pytest

from daemon.cli import BAD_CONFIG, BUSY, FAILED, main
from daemon.cli.health import NAGIOS
from daemon.config.service import CACHE, FILE, FOLDERS, STATE
from daemon.upkeep import health
from daemon.work.diskguard import DiskGuard, Room

REPOSITORY = Path(__file__).parents[3]
RUNBOOK = (REPOSITORY / "docs/operations.md").read_text()
PAGE = 60  # lines


def commands(text):
    """The words of every nirid command that stands in a block of commands, or by itself in the text."""
    blocks = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    alone = re.findall(r"`((?:sudo -u nirid )?nirid [a-z-][^`]*)`", text)
    for line in (*blocks, *alone):
        line = re.sub(r"\s+#.*", "", line)
        for part in re.split(r"&&|\|\||;|\||\$\(|\)|2>&1|>", line):
            try:
                words = shlex.split(part)
            except ValueError:  # of a piece between quotes
                continue
            words = words[3:] if words[:2] == ["sudo", "-u"] else words
            if len(words) > 1 and os.path.basename(words[0]) == "nirid":
                yield words[1:]


def all_commands():
    texts = [RUNBOOK, (REPOSITORY / "README.md").read_text()]
    return sorted({" ".join(map(shlex.quote, words)) for text in texts for words in commands(text)})


def test_commands_are_found():
    found = all_commands()
    assert "restore /var/lib/nirid/nirid.db.schema-4" in found
    assert "health --nagios --last-frame 1 --waiting 24" in found
    assert "doctor" in found
    assert len(found) > 30


@pytest.mark.parametrize("command", all_commands())
def test_every_command_is_understood(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*shlex.split(command), "--help"])
    assert end.value.code == 0, capsys.readouterr().err


def rows(heading):
    """The first two cells of each row of the table after a heading."""
    table = RUNBOOK.split(heading)[1].split("\n\n")
    (lines,) = [part for part in table if part.lstrip().startswith("|")][:1]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.strip().splitlines()[2:]]
    return [row[:2] for row in cells]


def test_every_check_has_its_line():
    source = Path(health.__file__).read_text()
    checks = set(re.findall(r'Problem\(\s*"(?:warning|critical)", "([^"]+)"', source))
    assert {"daemon", "workers", "disk", "jobs"} <= checks
    assert checks == {check for check, _ in rows("## What each alarm means")}


def test_every_exit_code_has_its_line():
    codes = {code for code, _ in rows("**Exit codes**")}
    assert {str(code) for code in (0, FAILED, 2, BUSY, BAD_CONFIG, *NAGIOS.values())} <= codes


def test_every_pause_has_its_line(tmp_path):
    guard = DiskGuard({"products": tmp_path / "none"}, 1e9, 10)
    said = {
        "GB free for products": guard.lacking("products", Room(0, None)),
        "inodes free for products": guard.lacking("products", Room(1 << 40, 1)),
        "the folder for products": guard.check(0.0),
    }
    guard.full("No space left on device", 0.0)
    said["a disk is full"] = guard.paused
    lines = [line for line, _ in rows("**Why work is paused.**")]
    for words, reason in said.items():
        assert words in reason
        assert any(words in line for line in lines), words


def test_a_page_is_a_page():
    pages = re.split(r"\n## ", RUNBOOK)
    assert {page.split("\n")[0]: n for page in pages if (n := len(page.splitlines())) > PAGE} == {}


def test_the_places_are_those_of_the_service():
    for name in (FILE, STATE, CACHE, FOLDERS):
        assert f"`/{name}" in RUNBOOK
