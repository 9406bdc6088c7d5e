"""Facts that two places once decided for themselves: what a standard is, and the kind of a calibration."""

from typing import get_args

import pytest

from daemon.model.rules import DEFAULT_RULES
from daemon.plan.grouping import admits
from pipeline.algorithms import combine
from pipeline.association import CalKind
from pipeline.calibrations.caldb import kind_of
from pipeline.headers.roles import role_of
from pipeline.reduction.chosen import is_standard
from pipeline.steps.stack import Operation, Rejection
from tests.night import describe


class Frame:
    """As much of a dataset as is asked."""

    def __init__(self, tags, facts):
        self.tags, self.facts = frozenset(tags), facts


@pytest.mark.parametrize("kind", ["partnerCal", "progCal", "science", "acq", "acqCal", "dayCal", None])
@pytest.mark.parametrize("name", ["FS 17", "SN2014J", "focus FS 17"])
@pytest.mark.parametrize("more", [(), ("TWILIGHT",), ("ACQUISITION",)])
def test_a_person_and_the_daemon_know_the_same_standards(kind, name, more):
    facts = describe("standard", 1, 0, observation_class=kind, object=name)
    tags = frozenset({"NIRI", "RAW", "IMAGE", *more})
    by_rule = [rule for rule in DEFAULT_RULES if rule.role == "standard"]
    assert by_rule
    assert is_standard(Frame(tags, facts)) == any(admits(rule, tags, facts) for rule in by_rule)
    assert is_standard(Frame(tags, facts)) == (role_of(tags, facts)[0] == "standard")


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ("NIRI PROCESSED DARK CAL", CalKind.DARK),
        ("NIRI PROCESSED FLAT CAL IMAGE", CalKind.FLAT),
        ("NIRI PROCESSED FLAT BPM CAL", CalKind.MADE_BPM),
        ("NIRI PROCESSED BPM CAL", CalKind.STATIC_BPM),
        ("NIRI PROCESSED FLAT SPECT CAL", None),
        ("NIRI PROCESSED PROCESSED_SCIENCE IMAGE", None),
        ("NIRI RAW DARK CAL", None),
        ("GNIRS PROCESSED DARK CAL", None),
    ],
)
def test_the_kind_of_a_calibration_is_in_its_tags(tags, kind):
    assert kind_of(frozenset(tags.split())) is kind


def test_parameters_name_every_way_to_combine():
    assert set(get_args(Operation)) == set(combine._OPERATIONS)
    assert set(get_args(Rejection)) == set(combine._REJECTIONS)
