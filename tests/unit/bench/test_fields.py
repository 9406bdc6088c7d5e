"""Bins of image quality, through pixels, near the limits: a short form of `python -m bench fields`."""

from bench import fields


def test_bins_are_right_and_doubt_is_said(tmp_path):
    answer = fields.measure(tmp_path, 40)
    tally = answer["tally"]
    assert tally["far, bin right"] == tally["far, state right"] == tally["far from every limit"] >= 10
    assert tally["near, borderline"] == tally["measured near its limit"] >= 3
    assert tally["not near, and borderline"] == 0
    assert tally["trailed, tried"] == tally["burnt, tried"] == 4
    assert tally["trailed, given a bin"] == tally["burnt, given a bin"] == 0
    assert abs(answer["pull"]) < 0.7
    assert answer["scatter"] < 1.3
