"""The notebook of the tutorial runs from top to bottom, in an empty folder, and shows what it promises."""

import json
import re
from pathlib import Path

import pytest

from tests.notebook import run

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


def outputs_of(kind, outputs):
    return [made for cell in outputs for made in cell if made["output_type"] == kind]


def test_it_runs_and_shows_its_pictures(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    outputs = run(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    said = "".join("".join(made["text"]) for made in outputs_of("stream", outputs))
    assert len(outputs_of("display_data", outputs)) == 6
    assert "wrote N20160102S0271_image.fits" in said
    assert "!!" not in said  # no number of the comparison with the truth is out of its limits
    assert "frames" in said
    widths = [float(width) for width in re.findall(r"width for [^:]*: ([\d.]+), wanted 1", said)]
    assert widths == pytest.approx([1.0, 1.0], abs=0.05), "the promise about noise, kept against the truth"


def test_its_stored_outputs_are_whole_and_name_no_folder_of_a_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert notebook["nbformat"] == 4
    cells = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(outputs_of("display_data", cells)) == 6
    assert outputs_of("error", cells) == []
    said = "".join("".join(made["text"]) for made in outputs_of("stream", cells))
    assert "/home" not in said
    assert "/tmp" not in said
    assert len(text) < 1_000_000
