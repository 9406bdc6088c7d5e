"""astropy's configuration is as it was, whatever of ours is imported and used."""

import subprocess
import sys
import threading

import pytest
from astropy.io import fits

from pipeline.files.read import as_header
from pipeline.quickcards import SETTINGS, quick_cards
from tests.skyframes import calibrated

PROGRAM = """
from astropy.io import fits
before = {name: vars(type(fits.conf))[name] for name in dir(fits.conf) if name in vars(type(fits.conf))}
import pipeline, pipeline.files.read, pipeline.reduce, pipeline.steps.prepare
assert {name: vars(type(fits.conf))[name] for name in before} == before
with fits.conf.set_temp("enable_record_valued_keyword_cards", False):
    assert fits.conf.enable_record_valued_keyword_cards is False
assert fits.conf.enable_record_valued_keyword_cards is True
with fits.conf.set_temp("strip_header_whitespace", False):
    assert fits.conf.strip_header_whitespace is False
print("as it was")
"""


def test_importing_the_toolkit_changes_nothing():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "as it was", done.stderr


def test_a_text_with_a_colon_and_a_number_stays_a_text():
    assert as_header({"OBJECT": "M31: 0.5"})["OBJECT"] == "M31: 0.5"
    frame = calibrated(1, size=16).evolve(cards={"OBJECT": "M31: 0.5", "NEWCARD": "M31: 0.5"})
    assert (frame.header["OBJECT"], frame.header["NEWCARD"]) == ("M31: 0.5", "M31: 0.5")
    assert fits.conf.enable_record_valued_keyword_cards is True


def test_it_is_put_back_after_the_last_user_and_after_an_error():
    own = {name: vars(type(fits.conf))[name] for name in SETTINGS}
    with pytest.raises(ValueError, match="x"), quick_cards():
        raise ValueError("x")
    inside, go = threading.Event(), threading.Event()

    def other():
        with quick_cards():
            inside.set()
            go.wait(10)

    thread = threading.Thread(target=other)
    with quick_cards():
        thread.start()
        assert inside.wait(10)
    assert vars(type(fits.conf))["enable_record_valued_keyword_cards"] is False
    go.set()
    thread.join()
    assert {name: vars(type(fits.conf))[name] for name in SETTINGS} == own
