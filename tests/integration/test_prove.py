"""A small share of what `make prove` tries: see tests/prove. (The kills are in tests/e2e/test_night.py.)"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("part", ["crashes", "errors", "damage", "arrivals", "clocks", "storm", "planted"])
def test_in_short(part):
    command = [sys.executable, "-m", "tests.prove", part, "--short", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    assert answer["found"] == []
    assert answer["tried"] > 0
    assert done.returncode == 0
