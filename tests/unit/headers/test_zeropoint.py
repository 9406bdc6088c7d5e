"""Which zero point of a night is taken: standards of known truth, one thing wrong with one of them."""

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from pipeline.headers.zeropoint import ZeroPoint, choose, scatter_of_frames

NOON = datetime(2016, 1, 5, 12, tzinfo=UTC)
NOMINAL = 26.40


def zero(image, value, *, hours=1.0, error=0.02, scatter=0.0, nominal=NOMINAL, airmass=1.2):
    when = NOON + timedelta(hours=hours)
    return ZeroPoint(value, error, f"FS {image}", 12.3, airmass, 0.06, 0.03, image, nominal, scatter, when)


def chosen(*zeros):
    """The choice, which must not depend on the order of what it is given."""
    air = {"when": NOON, "airmass": 1.2, "extinction": 0.06, "extinction_error": 0.03}
    choices = {
        repr(choose(several, **air)): choose(several, **air) for several in itertools.permutations(zeros)
    }
    assert len(choices) == 1
    return next(iter(choices.values()))


def test_one_standard_is_taken_as_it_is():
    choice = chosen(zero("a", 26.35))
    assert (choice.zero.image, choice.scatter, choice.photometric, choice.notes) == ("a", 0.0, None, ())


def test_of_standards_that_agree_the_nearest_is_taken_unless_it_is_much_less_exact():
    choice = chosen(zero("near", 26.38, hours=0.2), zero("far", 26.36, hours=3))
    assert (choice.zero.image, choice.photometric) == ("near", True)
    assert choice.scatter == 0.0, "their errors explain it"
    assert any("far" in note and "agrees" in note and "farther in time" in note for note in choice.notes)
    choice = chosen(zero("near", 26.38, hours=0.2, error=0.06), zero("far", 26.36, hours=3))
    assert choice.zero.image == "far"
    assert any("near" in note and "less exact" in note for note in choice.notes)


@pytest.mark.parametrize("apart", [0.17, 0.25, 0.39])
def test_of_two_that_disagree_the_less_clouded_is_taken_and_the_error_has_the_disagreement(apart):
    choice = chosen(zero("clear", 26.37, hours=5), zero("cloudy", 26.37 - apart, hours=0.1))
    assert (choice.zero.image, choice.photometric, choice.compared) == ("clear", False, 2)
    assert choice.scatter == pytest.approx(np.sqrt(apart**2 / 2 - 0.02**2))
    (why,) = [note for note in choice.notes if "cloudy" in note and "not used" in note]
    assert (
        "0.42 mag below nominal" if apart > 0.3 else f"{apart:.2f} mag fainter than clear, limit 0.08"
    ) in why
    assert choice.notes[-1].startswith("the night was not photometric")


def test_three_hold_against_one_that_is_brighter_or_fainter():
    three = [zero(name, 26.2 + 0.01 * i, hours=3 + i) for i, name in enumerate("abc")]
    for odd in (26.42, 25.9):
        choice = chosen(*three, zero("odd", odd, hours=0.1))
        assert choice.zero.image == "a"
        assert choice.photometric is False
        assert choice.scatter > 0.1
        assert any("odd" in note and "not used" in note and "limit" in note for note in choice.notes)


def test_what_no_sky_can_give_is_named_and_not_used():
    fine = zero("fine", 26.36, hours=9)
    choice = chosen(fine, zero("dream", NOMINAL + 0.5, hours=0.1))
    assert (choice.zero.image, choice.compared, choice.scatter) == ("fine", 1, 0.0)
    assert any(
        "dream" in n and "impossible, 0.50 mag above nominal 26.40, limit 0.16" in n for n in choice.notes
    )
    assert choice.photometric is None
    alone = chosen(zero("dream", NOMINAL + 0.68))
    assert alone.zero is None
    assert "no standard of the night gives a zero point" in alone.notes
    # At the edge: the limit is 0.1 and three of its errors above nominal.
    assert chosen(zero("edge", NOMINAL + 0.159)).zero is not None
    assert chosen(zero("edge", NOMINAL + 0.161)).zero is None
    assert chosen(zero("unknown", 30.0, nominal=None)).zero is not None


def test_a_standard_in_cloud_is_taken_only_when_there_is_no_other():
    cloudy = zero("cloudy", 26.36, hours=0.1, scatter=0.2, error=0.1)
    choice = chosen(cloudy, zero("clear", 26.33, hours=6))
    assert choice.zero.image == "clear"
    assert any("cloudy" in n and "in cloud, its frames differ by 0.20 mag" in n for n in choice.notes)
    alone = chosen(cloudy)
    assert (alone.zero.image, alone.photometric) == ("cloudy", False)
    assert "not photometric" in alone.notes[-1]
    thick = zero("thick", NOMINAL - 0.5, hours=0.1)
    assert "0.50 mag below nominal" in thick.cloud
    assert chosen(thick).photometric is False


def table(transparency, errors, verdicts=None):
    rows = np.zeros(len(errors), [("TRANSPARENCY", "f8"), ("TRANSP_ERR", "f8"), ("VERDICT", "S16")])
    rows["TRANSPARENCY"], rows["TRANSP_ERR"] = transparency, errors
    rows["VERDICT"] = verdicts or b"used"
    return rows


def test_the_scatter_between_frames_is_recovered_beyond_their_errors():
    rng = np.random.default_rng(3)
    found = []
    for _ in range(400):
        light = 10 ** (-0.4 * rng.normal(0.3, 0.08, 9))
        found.append(scatter_of_frames(table(light * (1 + rng.normal(0, 0.03, 9)), light * 0.03))[0])
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(0.08, rel=0.05)
    quiet = [scatter_of_frames(table(1 + rng.normal(0, 0.03, 9), [0.03] * 9))[0] for _ in range(400)]
    assert np.median(quiet) < 0.01


def test_frames_left_out_and_unknown_ones_do_not_count():
    light = [1.0, 1.0, 0.3, np.nan]
    assert scatter_of_frames(table(light, [0.0] * 4, [b"used", b"used", b"left out", b"used"])) == (0.0, 2)
    assert scatter_of_frames(table([1.0, np.nan], [0.0] * 2)) is None
    assert scatter_of_frames(np.zeros(3, [("NAME", "S8")])) is None
    assert scatter_of_frames(None) is None
