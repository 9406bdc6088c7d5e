"""HTML from Python: no text that comes in can write into a page."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.markup import LONGEST, join, short, tag, text
from daemon.people import svg

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    '"><script>x</script>',
    "'--><!--",
    "&lt;b&gt;",
    "\u202egnp.exe\u2066",
    "\0\x1b[31m",
]


class _Seen(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.data = [], ""

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))

    def handle_data(self, data):
        self.data += data


def parsed(html):
    seen = _Seen()
    seen.feed(html)
    seen.close()
    return seen


@pytest.mark.parametrize("said", HOSTILE)
def test_what_is_hostile_stays_text(said):
    seen = parsed(tag("p", said, title=said))
    assert [name for name, _ in seen.tags] == ["p"]
    assert set(seen.tags[0][1]) == {"title"}


@given(st.text(max_size=300))
def test_any_text_is_one_text_in_one_element(said):
    seen = parsed(tag("p", said, title=said))
    assert [name for name, _ in seen.tags] == ["p"]
    assert seen.data == seen.tags[0][1]["title"]


def test_marks_that_turn_the_writing_round_are_shown_as_what_they_are():
    assert text("a\u202eb\u2069") == "a\\u202eb\\u2069"
    assert text("\ud800") == "\\ud800"


def test_ordinary_text_is_as_it_was():
    said = 'M 31 & 5″ "Ümlaut" שלום'
    assert parsed(tag("p", said)).data == said


def test_a_megabyte_is_cut():
    assert len(text("x" * 1_000_000)) == LONGEST + 1
    assert len(short("x" * 1_000_000)) == 201


def test_attributes_are_named_as_html_has_them():
    html = tag("a", "x", class_="c", data_key=3, hidden=True, title=None, open=False)
    assert html == '<a class="c" data-key="3" hidden>x</a>'
    assert join("<", [tag("br"), ["&", None]]) == "&lt;<br>&amp;"


def test_what_was_made_here_is_not_cut():
    """A curve of three hundred points is longer than a text may be."""
    chart = svg.chart([(1e9 + 60.0 * n, 0.5 + 0.001 * n, 0.01) for n in range(300)], label="FWHM")
    bars, dots = (dict(a)["d"] for name, a in parsed(chart).tags if name == "path")
    assert dots.count("h0") == bars.count("V") == 300
    assert "…" not in bars + dots
    assert len(parsed(tag("p", title="x" * 3000)).tags[0][1]["title"]) == LONGEST + 1
