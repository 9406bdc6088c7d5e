"""Levels of calibrations through the main loop: a better one remakes, once; breakpoints."""

import json
import random
from datetime import timedelta

import pytest

from daemon.ledger import questions
from daemon.model.rules import Policy
from pipeline.association import CalKind
from pipeline.levels import Breakpoint
from tests.night import NIGHT, example1, frame, many_nights

IMAGE = "N20160102S0271_image"
HOUR, DAY = 3600.0, 86400.0


def darks(number, seconds):
    """Four darks for the science of `example1`, so long after its first frame."""
    day = f"{NIGHT + timedelta(seconds=seconds):%Y%m%d}"
    return [frame("dark", number + n, seconds + 30 * n, day=day) for n in range(4)]


def levels(daemon):
    """Card -> level of each current product, by name."""
    sql = "SELECT p.name, p.quality FROM product p WHERE p.current"
    cards = {row["name"]: json.loads(row["quality"]) for row in daemon.rows(sql)}
    return {name: {c: n for c, n in made.items() if c.endswith("LEV")} for name, made in cards.items()}


def times(daemon, name=IMAGE):
    return [spec.name for spec in daemon.engine.ran].count(name)


def test_a_better_level_remakes_once_and_what_comes_later_of_the_same_does_not(daemons):
    daemon = daemons()
    science, flats = example1()[:10], example1()[15:35]
    daemon.land(*darks(100, -100 * DAY), *flats, *science)
    daemon.run(HOUR)
    found = []
    for number, seconds in enumerate(
        (40 * DAY, -29 * DAY, 20 * DAY, -6 * DAY, 3 * DAY, 12 * HOUR, 16 * HOUR, 4 * DAY)
    ):
        daemon.land(*darks(200 + 10 * number, seconds))
        daemon.run(HOUR)
        found.append((times(daemon), levels(daemon)[IMAGE]["DARKLEV"]))
    assert found == [(1, 3), (2, 2), (2, 2), (3, 1), (3, 1), (4, 0), (4, 0), (4, 0)]


def test_of_the_same_level_what_was_taken_before_heals_even_when_it_is_farther(daemons):
    daemon = daemons()
    science, flats = example1()[:10], example1()[15:35]
    daemon.land(*darks(100, HOUR), *flats, *science)
    daemon.run(HOUR)
    daemon.land(*darks(200, -10 * HOUR))
    daemon.run(HOUR)
    assert times(daemon) == 2
    assert "N20160101S0200_dark" in daemon.current()[IMAGE]


def test_one_of_the_same_risk_is_told_and_left(daemons):
    daemon = daemons()
    science, flats = example1()[:10], example1()[15:35]
    daemon.land(*darks(100, -100 * DAY), *flats, *science)
    daemon.run(HOUR)
    daemon.land(*darks(200, -50 * DAY))
    daemon.run(HOUR)
    group = next(g for g in daemon.ask(questions.groups) if g["rule"] == "science")
    assert (times(daemon), group["better"]) == (1, "processed_dark N20151113S0200_dark")


def test_beyond_a_breakpoint_is_level_3_until_there_is_one_on_this_side(daemons):
    change = Breakpoint(NIGHT - timedelta(hours=1), frozenset({CalKind.DARK}), "another temperature")
    daemon = daemons(policy=Policy(breakpoints=(change,)))
    science, flats = example1()[:10], example1()[15:35]
    daemon.land(*darks(100, -2 * HOUR), *flats, *science)
    daemon.run(HOUR)
    assert levels(daemon)[IMAGE] == {"BPMLEV": 3, "DARKLEV": 3, "FLATLEV": 0}
    daemon.land(*darks(200, -5 * HOUR))  # beyond it, too
    daemon.run(HOUR)
    daemon.land(*darks(300, 29 * DAY))
    daemon.run(HOUR)
    assert (times(daemon), levels(daemon)[IMAGE]["DARKLEV"]) == (2, 2)


@pytest.mark.parametrize("seed", range(2))
def test_the_levels_of_all_products_do_not_depend_on_the_order_of_arrival(daemons, seed):
    """At 12 days apart what is missing is of level 2, where the product may: the level may not."""
    change = Breakpoint(NIGHT + timedelta(days=30), frozenset({CalKind.DARK, CalKind.FLAT}), "a new lamp")
    chance, policy = random.Random(seed), Policy(breakpoints=(change,) if seed else ())
    night = many_nights(4, days=12)
    at_once = daemons(policy=policy)
    at_once.land(*night)
    at_once.until_idle()
    daemon = daemons(policy=policy)
    chance.shuffle(night)
    for record in night:
        daemon.land(record)
        daemon.run(chance.choice([0, 0, 1, 400]), step=200)
    daemon.run(13 * HOUR, step=600)
    assert levels(daemon) == levels(at_once)
    assert {number for cards in levels(daemon).values() for number in cards.values()} >= {0, 2}
