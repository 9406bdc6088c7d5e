"""Parameters: types, bounds, presets, overrides, and what a mistake is told."""

from dataclasses import dataclass
from typing import Literal

import pytest

from pipeline import params
from pipeline.errors import OverrideError
from pipeline.params import bounded
from pipeline.primitive import Recipe, primitive


@dataclass(frozen=True)
class ClipParams:
    operation: Literal["mean", "median"] = bounded("mean", doc="how pixels are averaged")
    hsigma: float = bounded(3.0, gt=0, doc="high rejection, sigma", dragons=2.0)
    max_iters: int | None = bounded(None, ge=1, doc="most passes")
    scale: bool = bounded(False, doc="scale to the first frame")
    remove: tuple[str, ...] = bounded((), doc="frames to leave out")


@dataclass(frozen=True)
class OtherParams:
    hsigma: float = bounded(5.0, gt=0, doc="high rejection, sigma")


@primitive("testClip", ClipParams)
def clip(frames, params, cals):
    """Clip."""
    return frames


@primitive("testOther", OtherParams)
def other(frames, params, cals):
    """Other."""
    return frames


RECIPE = Recipe("testRecipe", 1, "_test", (clip(scale=True), other()))


def values(bound, step=0):
    return bound.steps[step].values()


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        (bool, "False", False),
        (bool, "yes", True),
        (int, "3", 3),
        (int, 3.0, 3),
        (float, "2.5", 2.5),
        (float, 2, 2.0),
        (int | None, "None", None),
        (int | None, "7", 7),
        (str, "'quoted'", "quoted"),
        (Literal["mean", "median"], "median", "median"),
        (Literal["mean"] | None, None, None),
        (tuple[str, ...], "a, b,", ("a", "b")),
        (bool | None, "true", True),
    ],
)
def test_coerce(kind, given, wanted):
    found = params.coerce(kind, given)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (bool, 1),
        (int, "2.5"),
        (int, True),
        (float, "nan"),
        (float, "x"),
        (Literal["a"], "b"),
        (int | None, "x"),
    ],
)
def test_coerce_refuses(kind, given):
    with pytest.raises(ValueError, match="must be"):
        params.coerce(kind, given)


def test_precedence_is_default_preset_override():
    assert values(RECIPE.bind())["hsigma"] == 3.0
    assert values(RECIPE.bind(preset="dragons"))["hsigma"] == 2.0
    assert values(RECIPE.bind({"testClip:hsigma": "4"}, preset="dragons"))["hsigma"] == 4.0


def test_a_bare_name_reaches_every_step_that_has_it_but_yields_to_a_full_one():
    for order in (("hsigma", "testClip:hsigma"), ("testClip:hsigma", "hsigma")):
        given = {"hsigma": 9.0, "testClip:hsigma": 4.0}
        bound = RECIPE.bind({key: given[key] for key in order})
        assert values(bound)["hsigma"] == 4.0
        assert values(bound, 1)["hsigma"] == 9.0


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ({"testClip:operation": "avg"}, "testClip:operation='avg': must be one of mean, median"),
        ({"testClip:hsgma": 1}, "testClip:hsgma: no such parameter; did you mean hsigma?"),
        ({"testClip:hsigma": -1.0}, "testClip:hsigma=-1.0: must be greater than 0"),
        ({"testClip:scale": False}, "testClip:scale: fixed to True by recipe testRecipe"),
        (
            {"tstClip:scale": False},
            "tstClip:scale: recipe testRecipe has no step tstClip; did you mean testClip?",
        ),
        ({"nobody": 1}, "nobody: no step of testRecipe takes it"),
        ({"testClip:skip_primitive": "maybe"}, "testClip:skip_primitive='maybe': must be True or False"),
    ],
)
def test_a_mistake_gets_one_clear_line(override, line):
    with pytest.raises(OverrideError) as error:
        RECIPE.bind(override)
    assert str(error.value) == line


def test_all_mistakes_are_told_together():
    with pytest.raises(OverrideError) as error:
        RECIPE.bind({"testClip:operation": "avg", "testOther:hsigma": 0})
    assert len(str(error.value).splitlines()) == 2


def test_what_a_recipe_fixes_is_checked_when_it_is_made():
    with pytest.raises(OverrideError, match="recipe wrong, testClip:operation='avg'"):
        Recipe("wrong", 1, "_x", (clip(operation="avg"),))


def test_skip_and_write_are_known_to_every_step():
    bound = RECIPE.bind({"testClip:skip_primitive": True, "testOther:write_outputs": "True"})
    assert bound.steps[0].skip
    assert not bound.steps[0].write
    assert bound.steps[1].write
