"""After the warm-up no job waits for the compiler: the real thing compiles nothing that is not there yet."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from daemon import logs
from daemon.work import worker, warmup
from pipeline import algorithms
from pipeline.files.read import read_frame
from pipeline.primitive import Calibrations, run_recipe
from pipeline.recipes import RECIPES

def compiled():
    modules = [m for name, m in sys.modules.items() if name.startswith("pipeline.algorithms.")]
    found = {f"{m.__name__}.{k}": len(v.signatures) for m in modules for k, v in vars(m).items()
             if isinstance(v, Dispatcher)}
    return found

logs.configure("warning", "json")
warmup.run_every_recipe()
before = compiled()
night = Path(sys.argv[1])
load = lambda *globs: [read_frame(p) for g in globs for p in sorted(night.glob(g))]
run = lambda name, frames, cals=Calibrations(): run_recipe(RECIPES[name].bind(), frames, cals).frame
lamps = load("N20160102S036*.fits")
cals = Calibrations(dark=run("makeProcessedDark", load("N20160102S042*.fits")))
bpm = run("makeProcessedBPM", lamps + load("N20160103*.fits"))
flat = run("makeProcessedFlat", lamps, Calibrations(static_bpm=load("bpm*.fits")[0], made_bpm=bpm))
run("reduce", load("N20160102S027*.fits"), Calibrations(cals.dark, flat, load("bpm*.fits")[0], bpm))
after = compiled()
print(json.dumps({"new": {k: n for k, n in after.items() if n > before.get(k, 0)}, "loops": len(before)}))
"""


def test_the_warm_up_compiles_what_a_night_needs(tmp_path):
    import json

    from pipeline.simulate import simulate_night

    simulate_night(tmp_path / "night", "tiny")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "night")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "warm_up_incomplete" not in done.stderr
    answer = json.loads(done.stdout)
    assert answer["loops"] > 20
    assert answer["new"] == {}


def test_a_worker_starts_without_scipy_and_can_have_it_later():
    program = """
import sys
from daemon.work import worker
worker.warm_up(True)
assert "scipy.linalg" not in sys.modules
from scipy.linalg import inv
assert inv([[2.0]])[0, 0] == 0.5
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2], timeout=60)
