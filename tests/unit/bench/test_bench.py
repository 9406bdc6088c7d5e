"""The benches run in their smallest form, and tell what they are asked for."""

import importlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench import common
from bench.__main__ import NAMES

WANTED = {
    "accuracy": ("rows", "records"),
    "registration": ("classes", "wrong"),
    "rough": ("records", "rows"),
    "floor": ("seconds", "bytes_read"),
    "night": ("runs", "floor"),
    "latency": ("beyond", "times_floor", "idle"),
    "steps": ("steps", "kernels"),
    "ingest": ("ways", "floor"),
    "scale": ("scale",),
    "archive": ("daemon", "questions", "steps"),
    "groups": ("groups", "limit_mb"),
    "cluster": ("runs", "daemon", "backlog"),
    "drift": ("masters", "held", "caught"),
    "enough": ("sequences", "within", "own"),
    "fields": ("fields", "tally"),
    "page": ("archive", "live"),
}
POSITIVE = (
    "seconds",
    "cpu_seconds",
    "warm_seconds",
    "times_floor",
    "files_per_second",
    "milliseconds",
    "parent_mb",
)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """All benches at once: most of their time is waiting for a daemon that starts."""
    data = tmp_path_factory.mktemp("data")
    common.compiled(data)

    def small(name):
        bench = importlib.import_module(f"bench.{name}")
        return bench.measure(data, **bench.SMALL)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(NAMES, pool.map(small, NAMES), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_smallest_form(answers, name):
    answer = answers[name]
    assert set(WANTED[name]) <= answer.keys()
    json.dumps(answer)
    for row in (answer, *answer.get("runs", ()), *answer.get("ways", ()), *answer.get("kernels", ())):
        assert all(row[key] > 0 for key in POSITIVE if isinstance(row.get(key), int | float))
    for title, columns, rows in importlib.import_module(f"bench.{name}").tables(answer):
        text = common.table(title, columns, rows)
        assert len(text.splitlines()) == len(rows) + 2 + 1  # an empty line, the title, the columns


def test_nights_have_names_times_and_pixels_of_their_own(tmp_path):
    first, second = (common.night(tmp_path, "tiny", k, "dark") for k in (0, 2))
    names = [[path.name for path in common.raw_files(folder)] for folder in (first, second)]
    assert names[0][0] == "N20160102S0423.fits"
    assert names[1][0] == "N20160108S0423.fits"
    pixels = [
        (folder / name[0]).read_bytes()[-100_000:]
        for folder, name in zip((first, second), names, strict=True)
    ]
    assert pixels[0] != pixels[1]
    before = (first / names[0][0]).stat().st_mtime_ns
    assert common.night(tmp_path, "tiny", 0, "dark") == first
    assert (first / names[0][0]).stat().st_mtime_ns == before
