"""Daemons whose ledger can be lost."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from daemon.ledger import questions
from daemon.work.worker import _cards
from pipeline.files.write import write_product
from pipeline.frame import Frame
from tests.integration.rebuild.helpers import DARK
from tests.night import FINAL, Daemon, FakeEngine, example1, static_bpm


class FitsEngine(FakeEngine):
    """Makes products that are real files, with the provenance of real ones, of few pixels."""

    def stage(self, spec):
        told = super().stage(spec)
        path = Path(told["fits"])
        path.unlink()
        steps = {"prepare": {}}
        for name, value in spec.parameters.items():
            step, _, parameter = name.partition(":")
            steps.setdefault(step, {})[parameter] = value
        header = fits.Header([("INSTRUME", "NIRI"), ("OBJECT", "x"), ("DATE-OBS", spec.inputs[0].ut[:10])])
        header["UT"] = spec.inputs[0].ut[11:19]
        header.update(told["quality"])
        measures = {}
        if spec.recipe in ("makeProcessedDark", "makeProcessedFlat", "makeProcessedBPM"):
            measures = {"read_noise": [12.25 + len(self.ran), 0.1, "electron"], "hot": [7.0, 3.0, "pix"]}
            told["quality"]["measures"] = measures
        for note in spec.notes:
            header.add_history(note)
        plane = np.zeros((4, 4), np.float32)
        mask = np.zeros((4, 4), np.uint16)
        sources = [(i.name, i.file_sha, "input") for i in spec.inputs]
        sources += [(c.name, c.sha, c.role) for c in spec.calibrations]
        sha = write_product(
            path,
            Frame(sci=plane, dq=mask, header=header, unit="electron", name=spec.name),
            provenance=sources,
            history=[(step, values, "nirid") for step, values in steps.items()],
            time_stamp=spec.time_stamp,
            cards=_cards(spec),
            measures=measures,
        )
        return {**told, "sha256": sha}


@pytest.fixture
def daemons(tmp_path, keep):
    return lambda **more: keep(Daemon(tmp_path, engine=FitsEngine(), **more))


@pytest.fixture
def night(daemons):
    """Made, a frame rejected, a dark made again on demand, a mask withdrawn."""
    daemon = daemons()
    daemon.land(*example1(), static_bpm())
    daemon.until_idle()
    daemon.decide("reject", "N20160102S0425", reason="trailed")
    daemon.until_idle()
    daemon.decide("requeue", DARK)
    daemon.until_idle()
    daemon.decide("requeue", DARK)
    daemon.until_idle()
    daemon.decide("reject", "N20160102S0373_bpm", reason="not nice")
    daemon.until_idle()
    assert set(daemon.current()) == FINAL - {"N20160102S0373_bpm"}
    return daemon


@pytest.fixture(autouse=True)
def _current_as_bytes(monkeypatch):
    def current(self):
        return {p["name"]: Path(p["path"]).read_bytes() for p in self.ask(questions.products)}

    monkeypatch.setattr(Daemon, "current", current)
