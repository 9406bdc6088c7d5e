"""Lists of files: whatever a name is made of, it comes back; whoever wrote the list, it is read."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.files.lists import ListError, comment_line, list_line, read_list

NAMES = [
    "N1.fits", "img#1.fits", "img #1.fits", "#1.fits", " a.fits ", "a\tb.fits", "a\nb.fits", "a\rb.fits",
    '"a".fits',
    '"', "a.fits # bad", "@a.fits", "a\x0bb\x0c\x1c\x85\u2028.fits", "\ufeffa.fits",
    "ä/é.fits", "*.fits", "a\\b.fits",
    os.fsdecode(b"\xff\xfe.fits"), "a b", "~", "\xa0a\xa0",
]  # fmt: skip


def through(path, names):
    text = "".join(f"{line}\n" for line in [comment_line("x", "a\nb"), *map(list_line, names)])
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return read_list(path)


def test_every_name_comes_back(tmp_path):
    assert through(tmp_path / "l", NAMES) == NAMES
    assert list_line("raw/N20160102S0270.fits") == "raw/N20160102S0270.fits"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=12).map(lambda b: os.fsdecode(b.replace(b"\0", b"x")))))
def test_any_bytes_come_back(tmp_path_factory, names):
    assert through(tmp_path_factory.mktemp("l") / "l", names) == names


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"\xef\xbb\xbfa.fits\nb.fits", ["a.fits", "b.fits"]),
        ("\ufeffa.fits\r\nb.fits\r\n".encode("utf-16-le"), ["a.fits", "b.fits"]),
        (b"a.fits\r\nb.fits\r\n", ["a.fits", "b.fits"]),
        (b"a.fits\rb.fits\r", ["a.fits", "b.fits"]),
        (b"# head\n\n  a.fits  # cloud\n\t#b.fits\nimg#1.fits\n", ["a.fits", "img#1.fits"]),
        (b'"a b.fits"\n"open.fits\n', ["a b.fits", '"open.fits']),
        (b"", []),
    ],
)
def test_lists_of_every_make(tmp_path, content, names):
    (tmp_path / "l").write_bytes(content)
    assert read_list(tmp_path / "l") == names


@pytest.mark.parametrize("content", [b"a.fits\nb\0.fits\n", b"\xff\xfea"])
def test_what_is_no_list_is_told(tmp_path, content):
    (tmp_path / "l").write_bytes(content)
    with pytest.raises(ListError, match=r"line 2 holds a NUL|utf-16"):
        read_list(tmp_path / "l")
    for path in (tmp_path / "absent", tmp_path, "a\0b"):
        with pytest.raises(ListError):
            read_list(path)
