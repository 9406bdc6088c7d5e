"""docs/architecture.md: its picture is that of the imports, and what it names is there."""

import re
from pathlib import Path

import pytest

from docs import rooms

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/architecture.md").read_text(encoding="utf-8")


def test_the_picture_is_that_of_the_imports():
    drawn = (TOP / "docs/rooms.svg").read_text(encoding="utf-8")
    assert drawn == rooms.drawing(), "draw it anew: python docs/rooms.py"


def test_a_circle_is_told_by_its_names():
    with pytest.raises(ValueError, match="in a circle: a, b"):
        rooms.floors({"a": {"b"}, "b": {"a"}, "c": set()})


def test_arrows_leave_out_what_others_imply():
    graph = {"low": set(), "middle": {"low"}, "high": {"low", "middle"}}
    assert rooms.arrows(graph) == [("high", "middle"), ("middle", "low")]


def test_every_path_on_the_page_is_there():
    named = set(re.findall(r"`((?:daemon|pipeline|tests|docs)/[\w./]*)`", PAGE))
    assert len(named) > 25
    assert [path for path in sorted(named) if not (TOP / path).exists()] == []
    assert [
        name
        for name in re.findall(r"^\* `(\w+\.py)`", PAGE, re.M)
        if not (TOP / "daemon/ledger" / name).exists()
    ] == []


@pytest.mark.parametrize("way", ["frame", "decision"])
def test_each_way_has_at_most_eight_stations(way):
    text = PAGE.partition(f"## The way of a {way}\n")[2].partition("\n## ")[0]
    assert 5 <= len(re.findall(r"^\d\. ", text, re.M)) <= 8
