"""How strongly two lists of sources speak for one shift between them, against chance.

A shift and a common ratio of fluxes predict, of each source of the reference, whether and where the image
shows it. Say that a source which should be seen is found with probability c if the shift is right, and with
probability p, from the density of sources like it, if it is not. The likelihood ratio of the two,

    L = product over those found of c / p, over those not found of (1 - c) / (1 - p),

has the mean 1 for a shift that is wrong; so of N wrong shifts looked at fewer than N / L reach L by chance
(Markov's inequality). N grows with the distance from where the header says: a small correction needs less
evidence than a large one. Missing sources speak against a shift, bright ones more for it than faint ones, and
clouds do no harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms.shifts import Floats, Points

Indices = NDArray[np.intp]

# Share of the sources that should be seen and are: blends, bad pixels, a catalogue full of noise. Both are
# tried: the mean of two likelihood ratios is one too.
COMPLETE = (0.6, 0.2)
UNLIKE = 0.6  # ln of flux by which two measurements of a source differ at most: seeing, blends, noise
DIMMEST = 3.2  # ln of a common ratio of fluxes looked for: 3.5 magnitudes of cloud in either frame
SMALLEST = 256  # pixels, side of NIRI's smallest usual array: no image is taken for smaller
NEAR = 48.0  # pixels within which nearly every header is right: looked at first
LIKE_STRENGTH = 0.8  # a second shift with so much of the logarithm of the first's evidence makes it no answer
FEW_PAIRS = 800  # pairs of sources, up to which no tree is needed
TRIES = 150  # most proposals that are looked at closely


class Proposal(NamedTuple):
    """A shift in pixels, ln of image over reference flux, sources that agree, expected chance agreements as
    good as this, share of the expected sources that are found, reach in pixels within which they agree."""

    dx: float
    dy: float
    ratio: float
    number: int
    chance: float
    share: float
    reach: float


class _Lists(NamedTuple):
    """Both lists, and what is known of the image."""

    a: Points
    b: Points
    magnitudes: Floats  # ln flux of b, sorted
    crowded: Floats  # density of b around each of its sources over the mean, at least 1
    shape: tuple[float, float]
    limit: float
    reach: float


class _Pairs(NamedTuple):
    """Each pair of sources that lies within the search: indices, shift, ln of the flux ratio."""

    i: Indices
    j: Indices
    dx: Floats
    dy: Floats
    ratio: Floats


def best_shift(
    a: Points,
    b: Points,
    *,
    search: float,
    radius: float,
    shape: tuple[int, int] | None = None,
    limit: float | None = None,
    loose: bool = False,
) -> Proposal | None:
    """The shift that the sources speak for most; None where none does, or two do alike.

    a : sources of the reference where the header has them in the image; b : of the image
    search : largest shift, pixels; radius : within which two sources can be one, pixels
    shape : (ny, nx) of the image; limit : faintest flux that it shows; None: as far as the sources reach
    loose : sources agree anywhere within `radius`, as when the field may be turned; else as their errors let
        them

    `chance` of the answer is for the caller to judge.
    """
    lists = _lists(a, b, radius, shape, limit, loose)
    quick = _best(lists, min(search, NEAR))
    if quick is not None and quick.chance < 1e-9 and quick.share > 0.6 and quick.number > 4:
        return quick
    return quick if search <= NEAR else _best(lists, search)


def _lists(
    a: Points,
    b: Points,
    radius: float,
    shape: tuple[int, int] | None,
    limit: float | None,
    loose: bool,
) -> _Lists:
    if shape is None:
        low = (
            max(SMALLEST, math.ceil(max(a.y.max(), b.y.max()))),
            max(SMALLEST, math.ceil(max(a.x.max(), b.x.max()))),
        )
        shape = low
    if limit is None:
        limit = float(np.quantile(b.flux, 0.1)) if b.flux.size >= 5 else float(b.flux.min())
    typical = 4 * math.hypot(float(np.median(a.error)), float(np.median(b.error)))
    reach = radius if loose else min(radius, max(1.0, typical))
    area, out = float(shape[0] * shape[1]), min(64.0, 0.2 * min(shape))
    apart = np.hypot(np.subtract.outer(b.x, b.x), np.subtract.outer(b.y, b.y))
    others = np.sum((apart > radius) & (apart < out), axis=1)
    crowded = np.maximum(1.0, others / (math.pi * out**2) / (b.x.size / area))
    return _Lists(a, b, np.sort(np.log(b.flux)), crowded, (float(shape[0]), float(shape[1])), limit, reach)


def _best(lists: _Lists, search: float) -> Proposal | None:
    pairs = _pairs_within(lists, search)
    if not pairs.i.size:
        return None
    found = []
    for members in _agreeing(pairs, lists.reach):
        proposal = _weighed(lists, pairs, members)
        if proposal is not None:
            found.append(proposal)
    if not found:
        return None
    found.sort(key=lambda p: p.chance)
    best = found[0]
    strength = -math.log(max(best.chance, 1e-300))
    for other in found[1:]:
        if math.hypot(other.dx - best.dx, other.dy - best.dy) > 2 * lists.reach:
            if -math.log(max(other.chance, 1e-300)) > LIKE_STRENGTH * strength:
                return None
            break
    return best


def _pairs_within(lists: _Lists, search: float) -> _Pairs:
    a, b = lists.a, lists.b
    dx, dy = np.subtract.outer(b.x, a.x).T, np.subtract.outer(b.y, a.y).T
    ratio = np.subtract.outer(np.log(b.flux), np.log(a.flux)).T
    i, j = np.nonzero((np.hypot(dx, dy) <= search) & (np.abs(ratio) <= DIMMEST))
    return _Pairs(i, j, dx[i, j], dy[i, j], ratio[i, j])


def _agreeing(pairs: _Pairs, reach: float) -> list[Indices]:
    """The pairs that agree in shift and flux ratio with each one, the largest sets first."""
    places = np.column_stack([pairs.dx / reach, pairs.dy / reach, pairs.ratio / UNLIKE])
    counts, around = _neighbours(places)
    # Among equals the ones nearest to the header: their number may be large.
    order = np.lexsort((np.hypot(pairs.dx, pairs.dy), -counts))
    seen = np.zeros(counts.size, bool)
    out = []
    for k in order:
        if seen[k]:
            continue
        members = around(places[k])
        again = around(np.median(places[members], axis=0))
        members = again if again.size >= members.size else members
        seen[members] = True
        seen[k] = True
        out.append(np.sort(members))
        if len(out) >= TRIES:
            break
    return out


def _neighbours(places: Floats) -> tuple[NDArray[np.int64], Callable[[Floats], Indices]]:
    """(number of places within 1 of each, the places within 1 of any point); (n, 3) places.

    A tree where there are many; loading it takes longer than to look at all of a few hundred.
    """
    if len(places) <= FEW_PAIRS:
        apart = sum(np.subtract.outer(column, column) ** 2 for column in places.T)
        counts = np.count_nonzero(np.asarray(apart) <= 1.0, axis=1)
        return counts, lambda point: np.flatnonzero(((places - point) ** 2).sum(axis=1) <= 1.0)
    from scipy.spatial import cKDTree

    tree = cKDTree(places)
    counts = tree.query_ball_point(places, 1.0, return_length=True)
    return counts, lambda point: np.sort(np.array(tree.query_ball_point(point, 1.0), dtype=np.intp))


def _weighed(lists: _Lists, pairs: _Pairs, members: Indices) -> Proposal | None:
    """The evidence for the shift and flux ratio that these pairs agree in."""
    a, reach = lists.a, lists.reach
    dx, dy, ratio = (float(np.median(v[members])) for v in (pairs.dx, pairs.dy, pairs.ratio))
    off = np.hypot(pairs.dx[members] - dx, pairs.dy[members] - dy)
    members = members[np.argsort(off, kind="stable")]
    members = members[np.unique(pairs.j[members], return_index=True)[1]]  # each source once, the nearest
    members = members[np.unique(pairs.i[members], return_index=True)[1]]
    i, j = pairs.i[members], pairs.j[members]
    # Which sources of the reference should be seen, and how surely.
    x, y = a.x + dx, a.y + dy
    rim = 3.0
    inside = (x > rim) & (x < lists.shape[1] - 1 - rim) & (y > rim) & (y < lists.shape[0] - 1 - rim)
    brightness = (a.flux * math.exp(ratio) / lists.limit) ** 4
    seen = np.where(inside, brightness / (brightness + 1), 0.0)
    # Chance: sources of that flux that the image has, on the area within which they would agree.
    area = lists.shape[0] * lists.shape[1]
    middle = np.log(a.flux) + ratio
    alike = np.searchsorted(lists.magnitudes, middle + UNLIKE) - np.searchsorted(
        lists.magnitudes, middle - UNLIKE
    )
    chance = np.minimum(0.5, math.pi * reach**2 * np.maximum(alike, 1) / area)
    chance_found = np.minimum(0.5, chance[i] * lists.crowded[j])
    missed = np.ones(a.x.size, bool)
    missed[i] = False
    away = math.hypot(dx, dy)
    share = float(np.sum(seen[i]) / max(np.sum(seen), 1e-9))
    logs = []
    for complete in COMPLETE:
        sure = np.maximum(complete * seen, 0.02)
        against = float(np.sum(np.log((1 - sure[missed]) / (1 - chance[missed]))))
        logs.append((float(np.sum(np.log(sure[i] / chance_found))), against))
    if members.size == 1:
        # A lone source is believed close to its place only, and with its own flux.
        like = int(np.sum(np.abs(np.log(a.flux) - np.log(a.flux[i[0]])) < UNLIKE))
        near = math.pi * (away + reach) ** 2 / area * lists.crowded[j[0]]
        luck = like * alike[i[0]] * near * max(abs(ratio), 0.1) / UNLIKE
        luck *= 1 if abs(ratio) < UNLIKE else 100
        return Proposal(dx, dy, ratio, 1, float(luck) * math.exp(min(-logs[0][1], 50)), share, reach)
    evidence = float(np.logaddexp.reduce([sum(v) for v in logs])) - math.log(len(logs))
    tried = 2 * math.log(1 + away / reach) + math.log(1 + abs(ratio) / UNLIKE) + math.log(6)
    return Proposal(dx, dy, ratio, int(members.size), math.exp(min(tried - evidence, 50)), share, reach)
