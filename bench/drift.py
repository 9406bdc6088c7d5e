"""The guard of calibrations on simulated nights: how often it holds a good master, which faults it holds.

    python -m bench drift            # 200 normal nights, a dark and a flat each, and every planted fault

Frames are drawn from the statistics of a small detector (256 x 256, four quadrants, in whole counts as the
real one gives them) and measured by the function that measures masters; the verdict sees nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.judgement.drift import LOOKS_BACK, Past, Setup, State, Verdict, judged
from pipeline.algorithms import masterfigures

SIDE = 256
GAIN = 12.3  # electrons for a count
FRAMES, LIT = 8, 10
SECONDS, LAMP_SECONDS, COUNTS = 60.0, 1.4, 40000.0
SETUP = Setup("Medium Background", 1, SIDE * SIDE, SECONDS)
BEGAN = datetime(2016, 1, 1, tzinfo=UTC)
Image = NDArray[np.float64]


@dataclass(frozen=True)
class Detector:
    """One night's detector and lamp. What differs from pixel to pixel is (SIDE, SIDE).

    hot, response : the fixed pattern, e-/s and of the level; level : e-/s of each quadrant
    leak : e-/s; noise : electrons; lamp : of the usual; true_gain : over that of the header
    """

    hot: Image
    response: Image
    level: Image
    leak: Image
    noise: float = 35.0
    lamp: float = 1.0
    true_gain: float = 1.0
    dead: bool = False


def detector(rng: np.random.Generator) -> Detector:
    """One that is the same for all its nights: 150 hot pixels, a response that falls off to the edges."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    hot = np.zeros((SIDE, SIDE))
    hot.flat[rng.choice(hot.size, 150, replace=False)] = rng.uniform(20.0, 300.0, 150)
    response = (1.0 - 0.3 * (x**2 + y**2) + 0.05 * x) * rng.normal(1.0, 0.02, hot.shape)
    return Detector(hot, response, np.zeros_like(hot), np.zeros_like(hot))


def of_night(base: Detector, night: int, rng: np.random.Generator) -> Detector:
    """The same on one night: levels of quadrants, noise and light differ a little, the lamp ages by 15 % a
    year, a pixel in two nights becomes hot."""
    half, hot = SIDE // 2, base.hot.copy()
    level = np.kron(0.25 + rng.normal(0.0, 0.02) + rng.normal(0.0, 0.01, (2, 2)), np.ones((half, half)))
    hot.flat[rng.choice(hot.size, rng.poisson(0.5))] += 100.0
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    tilt = 1.0 + rng.normal(0.0, 0.001) * x + rng.normal(0.0, 0.001) * y
    lamp = (1.0 - 0.15 * night / 365.0) * rng.normal(1.0, 0.01)
    noise = base.noise * rng.normal(1.0, 0.005)
    return replace(base, hot=hot, level=level, response=base.response * tilt, lamp=lamp, noise=noise)


def _frame(electrons: Image, own: Detector, rng: np.random.Generator) -> NDArray[np.float32]:
    """As the reduction has it: whole counts times the gain of the header."""
    light = rng.poisson(np.maximum(electrons, 0.0)) + rng.normal(0.0, own.noise, electrons.shape)
    counts = np.rint(light / (GAIN * own.true_gain))
    if own.dead:
        counts[: SIDE // 2, SIDE // 2 :] = 0.0
    return (counts * GAIN).astype(np.float32)


def dark(own: Detector, rng: np.random.Generator) -> masterfigures.Figures:
    flow = (own.hot + own.level + own.leak) * SECONDS
    frames = [_frame(flow, own, rng) for _ in range(FRAMES)]
    for frame in frames:  # cosmic rays
        frame.flat[rng.choice(frame.size, rng.poisson(6))] += 2000.0
    return masterfigures.of_darks(frames, [np.zeros(f.shape, np.uint16) for f in frames], SECONDS)


def flat(own: Detector, rng: np.random.Generator) -> masterfigures.Figures:
    around = (own.hot + own.level + own.leak) * LAMP_SECONDS + 3000.0
    on = [_frame(own.response * COUNTS * own.lamp + around, own, rng) for _ in range(LIT)]
    off = [_frame(around, own, rng) for _ in range(LIT)]
    masks = [np.zeros(f.shape, np.uint16) for f in on]
    return masterfigures.of_flats(on, off, masks, LAMP_SECONDS)


MEASURE = {"DARK": dark, "FLAT": flat}


# -- faults ----------------------------------------------------------------------------------


def leak(own: Detector, rng: np.random.Generator) -> Detector:
    """5 e-/s in a corner, that fade over a sixth of the array."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    return replace(own, leak=5.0 * np.exp(-(x**2 + y**2) / (2 * 0.16**2)))


def other_light(own: Detector, rng: np.random.Generator) -> Detector:
    """The light of another lamp or filter, which falls on the detector otherwise: 6 % from edge to edge."""
    x = np.mgrid[0:SIDE, 0:SIDE][1] / SIDE - 0.5
    return replace(own, response=own.response * (1.0 + 0.06 * x), lamp=own.lamp * 1.4)


def hot_pixels(own: Detector, rng: np.random.Generator) -> Detector:
    """A thousand of a detector of 1024 x 1024, as many on as much of it: 63 here."""
    hot = own.hot.copy()
    hot.flat[rng.choice(hot.size, round(1000 * hot.size / 1024**2), replace=False)] += 50.0
    return replace(own, hot=hot)


FAULTS: dict[str, tuple[str, Callable[[Detector, np.random.Generator], Detector]]] = {
    "light leak of 5 e-/s in a corner": ("DARK", leak),
    "another lamp or filter": ("FLAT", other_light),
    "dead quadrant, dark": ("DARK", lambda own, rng: replace(own, dead=True)),
    "dead quadrant, flat": ("FLAT", lambda own, rng: replace(own, dead=True)),
    "1000 new hot pixels": ("DARK", hot_pixels),
    "gain x 1.05": ("FLAT", lambda own, rng: replace(own, true_gain=1.05)),
    "read noise x 1.5": ("DARK", lambda own, rng: replace(own, noise=own.noise * 1.5)),
    "level up by 2 e-/s without structure": ("DARK", lambda own, rng: replace(own, level=own.level + 2.0)),
}


@dataclass(frozen=True)
class Rates:
    """masters : normal ones judged by a usual; held, warned : of them; cold : held before there was a usual

    caught : {fault: (held, tried)}
    """

    masters: int
    held: int
    warned: int
    cold: int
    caught: dict[str, tuple[int, int]]
    words: tuple[str, ...]


def measured(nights: int = 200, seed: int = 20161128, tries: int = 5) -> Rates:
    """Judge every night in order, and each fault on `tries` nights after them."""
    rng = np.random.default_rng(seed)
    base = detector(rng)
    lines: dict[str, list[Past]] = {"DARK": [], "FLAT": []}
    verdicts: list[Verdict] = []
    cold = 0
    for night in range(nights):
        own = of_night(base, night, rng)
        for kind, line in lines.items():
            verdict, new = _judge(kind, own, night, line, rng)
            if len(line) < 5:
                cold += verdict.state is State.HELD
            else:
                verdicts.append(verdict)
            if verdict.state is not State.HELD:
                line.append(new)
                del line[:-LOOKS_BACK]
    caught, words = _faults(base, nights, lines, rng, tries)
    held = [v for v in verdicts if v.state is State.HELD]
    warned = sum(v.state is State.WARNING for v in verdicts)
    return Rates(
        len(verdicts), len(held), warned, cold, caught, (*words, *(f"normal: {v.reasons}" for v in held))
    )


def _faults(
    base: Detector, night: int, lines: dict[str, list[Past]], rng: np.random.Generator, tries: int
) -> tuple[dict[str, tuple[int, int]], list[str]]:
    caught, words = {}, []
    for name, (kind, spoil) in FAULTS.items():
        found = [
            _judge(kind, spoil(of_night(base, night + k, rng), rng), night + k, lines[kind], rng)[0]
            for k in range(tries)
        ]
        caught[name] = sum(v.state is State.HELD for v in found), tries
        words.append(f"{name}: {found[0].state}: {'; '.join(found[0].reasons[:3])}")
    return caught, words


def _judge(
    kind: str, own: Detector, night: int, line: Sequence[Past], rng: np.random.Generator
) -> tuple[Verdict, Past]:
    new = Past(MEASURE[kind](own, rng), BEGAN + timedelta(days=night))
    return judged(kind, SETUP, new.figures, line), new


SMALL = {"nights": 20, "tries": 1}


def measure(data: Path, nights: int = 200, tries: int = 5) -> dict[str, Any]:
    """As every bench answers. data : not used, all is drawn here."""
    return asdict(measured(nights, tries=tries))


def tables(answer: dict[str, Any]) -> Iterator[tuple[str, Sequence[str], list[Sequence[Any]]]]:
    n = answer["masters"]
    yield (
        "normal masters",
        ("judged by a usual", "held", "held %", "warned", "warned %", "held in a cold start"),
        [(n, answer["held"], round(100 * answer["held"] / n, 2), answer["warned"],
          round(100 * answer["warned"] / n, 2), answer["cold"])],
    )  # fmt: skip
    rows = [(name, *found) for name, found in answer["caught"].items()]
    yield "faults", ("fault", "held", "tried"), rows
    yield "in words", ("what was said",), [(words,) for words in answer["words"]]
