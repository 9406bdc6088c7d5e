"""What the two pictures of a figure are called, and what a shell is told of a file."""

import re

import pytest

from daemon.web import figure


def row(kind, of, *, group=1, version=1):
    return {"kind": kind, "of": of, "group": group, "version": version}


LOOK, SO_FAR = row("look", "firstlook"), row("look", "running")
STACK, OLD = row("product", "reduce", version=2), row("product", "reduce")
MASTER = row("product", "makeProcessedFlat")


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (LOOK, SO_FAR, ("frame", "stack")),
        (LOOK, STACK, ("frame", "stack")),
        (LOOK, None, ("frame", "stack")),
        (LOOK, LOOK, ("frame", "other")),
        (SO_FAR, LOOK, ("stack", "frame")),
        (STACK, OLD, ("version 2", "version 1")),
        (STACK, row("product", "reduce", group=2), ("stack", "other")),
        (MASTER, None, ("master", "other")),
    ],
)
def test_two_pictures_are_called_what_they_are(first, second, words):
    assert figure.words_of(first, second) == words


def test_a_path_is_quoted_for_a_shell():
    assert figure.command("/data/a b/$(rm -r x)'.fits") == """ds9 '/data/a b/$(rm -r x)'"'"'.fits'"""


def test_a_picture_alone_has_no_button_that_wants_a_second():
    one = {"picture": "/image/look/1/k", "fits": "/fits/look/1/k", "path": "/a.fits", "name": "a", "sky": {}}
    one |= row("look", "firstlook")
    keys = [re.findall('data-key="(.)"', str(figure.picture(one, other))) for other in (None, one)]
    assert set(keys[1]) - set(keys[0]) == set("fsbd")
    assert keys[0] == list("a-+,.zx0")
