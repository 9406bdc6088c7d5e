"""Synthetic raw NIRI nights of which everything is known.

simulate_night(folder, "example1")     # raw frames in order of observation, and truth.json
Shot(...).with_sky(...).render(seed)   # one frame, for the test of a step
"""

from pipeline.simulate.faults import Fault, Motion
from pipeline.simulate.night import Options, simulate_night
from pipeline.simulate.presets import PRESETS
from pipeline.simulate.runs import Preset, Run
from pipeline.simulate.shot import RawFrame, Shot

__all__ = ["PRESETS", "Fault", "Motion", "Options", "Preset", "RawFrame", "Run", "Shot", "simulate_night"]
