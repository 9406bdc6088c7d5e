"""What the bench of rough nights measures of a stack, its frames and its notes, against the truth."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sep

from bench import common
from bench.roughnights import Case, science
from pipeline.headers.tangent import tangent
from pipeline.simulate.truth import Product, Truth, median_error, root, spread
from pipeline.simulate.verify_image import (
    ANNULUS,
    APERTURE,
    Expected,
    aperture_fluxes,
    clean_stars,
    expect_image,
)

REGISTERED = "adjustWCSToReference"
FAINTEST = 18.8  # mag, of stars whose flux is compared
THIRD = 3  # stars at least in the bright, the middle and the faint ones


class Figure(NamedTuple):
    """One number and what it may be at most; `error` of the number itself, three of which are allowed."""

    case: str
    what: str
    value: float
    limit: float
    error: float = 0.0

    @property
    def ok(self) -> bool:
        return bool(abs(self.value) <= max(self.limit, 3 * self.error))


class Place(NamedTuple):
    """How a frame lies to the others.

    off : from where most of them lie, by the truth, pixels;  from_reference : the same, from the one that it
        was registered to;  claimed : its own error of that;  how : by what means
    """

    off: float
    from_reference: float
    claimed: float
    how: str


@dataclass
class Outcome:
    """A reduced sequence."""

    case: Case
    truth: Truth
    product: Product
    notes: tuple[str, ...]
    frames: list[Any]  # after registration

    def row(self, name: str) -> Any:
        """The frame's row in FRAMES, None without one."""
        rows = () if self.product.members is None else self.product.members
        return next((row for row in rows if root(row["NAME"]) == name), None)

    def verdict(self, name: str, column: str = "VERDICT") -> str:
        row = self.row(name)
        return "" if row is None or column not in row.dtype.names else word(row[column])

    def noted(self, name: str) -> bool:
        """Whether a note names the frame, a figure and a limit."""
        texts = [text for text in self.notes if name in text]
        return any(re.search(r"\d", text.replace(name, "")) and "limit" in text for text in texts)

    def told(self, name: str) -> bool:
        """Whether a note names the frame at all."""
        return any(name in text for text in self.notes)


def word(value: Any) -> str:
    return (value.decode("ascii") if isinstance(value, bytes) else str(value)).strip()


def reduced(
    case: Case, number: int, cals: Mapping[str, Path], work: Path, without: Sequence[str] = ()
) -> Outcome:
    """The sequence reduced; `without` : frames that are not given to the recipe."""
    folder = work / "night"
    if not (folder / "truth.json").exists():
        science(folder, case, number)
    truth = Truth(folder)
    files = [folder / f"{name}.fits" for name in sorted(truth.frames) if name not in without]
    stem = work / f"stack{len(without)}"
    kept = {"removeFirstFrame:remove_first": False}  # the first is a frame like any other
    made = common.by_recipe("reduce", files, cals, stem, kept, steps=(REGISTERED,))
    return Outcome(case, truth, Product.read(made.path), made.notes, made.seen.get(REGISTERED, []))


# -- registration -----------------------------------------------------------------------------------------


def places(outcome: Outcome) -> dict[str, Place]:
    """By frame: how far its sky, or its moving target, lies from where those of most frames lie."""
    frames = {root(Path(str(f.header.get("ORIGNAME", f.name))).name): f for f in outcome.frames}
    key = "mover" if outcome.case.motion else "target"
    true = {name: _true_place(outcome.truth.frames[name], key) for name in frames}
    first = next(iter(frames))
    anchor = tangent(frames[first].header)
    assert anchor is not None
    sky = anchor.to_sky(*true[first])
    left = {}
    for name, frame in frames.items():
        wcs = tangent(frame.header)
        assert wcs is not None
        left[name] = np.subtract(wcs.to_pixel(*sky), true[name])
    middle = np.median(list(left.values()), axis=0)
    how = {name: str(frame.header.get("REGMETH", "")).strip() for name, frame in frames.items()}
    reference = left[next((name for name in frames if how[name] == "reference"), first)]
    found = {}
    for name, frame in frames.items():
        claimed = float(frame.header.get("REGERR", 0.0) or 0.0)
        off, apart = (float(np.hypot(*(left[name] - zero))) for zero in (middle, reference))
        found[name] = Place(off, apart, claimed, how[name])
    return found


def _true_place(facts: Mapping[str, Any], key: str) -> tuple[float, float]:
    x, y = facts["mover"]["xy"] if key == "mover" else facts["target_xy"]
    return float(x), float(y)


def registration(outcome: Outcome, limit: float = 0.1, only: Sequence[str] | None = None) -> Iterator[Figure]:
    """Every frame of the stack at its place, or placed by its header and said so; claims honest."""
    found, case = places(outcome), outcome.case.name
    inputs = set(outcome.product.inputs())
    here = {name: p for name, p in found.items() if (only is None or name in only) and name in inputs}
    by_means = [p for p in here.values() if p.how != "offsets"]
    yield Figure(
        case, "registration, farthest frame, pix", max((p.off for p in by_means), default=0.0), limit
    )
    untold = [name for name, p in here.items() if p.how == "offsets" and not outcome.told(name)]
    yield Figure(case, "registered by the header without a note, frames", len(untold), 0)
    # Where a double image "is" may be asked of either; of what is left out no more is asked.
    double = {name for name, facts in outcome.truth.frames.items() if "double" in facts.get("fault", {})}
    worst = max(
        (p.from_reference - 5 * p.claimed for name, p in found.items() if name not in double), default=0.0
    )
    yield Figure(case, "registration error less 5 claimed errors, pix", max(worst, 0.0), 0.05)


def typical_registration(outcome: Outcome, limit: float) -> Figure:
    """Rms of one coordinate over the frames: of faint stars the farthest is luck."""
    offs = np.array([place.off for place in places(outcome).values()])
    value = float(np.sqrt(np.mean(offs**2) / 2))
    error = value / np.sqrt(4 * max(len(offs) - 1, 1))
    return Figure(outcome.case.name, "registration, rms of a coordinate, pix", value, limit, float(error))


def unchanged(outcome: Outcome, other: Outcome) -> Figure:
    """Registration of the frames that both have: the largest change."""
    changes = [0.0]
    a, b = ({root(f.header.get("ORIGNAME", f.name)): f for f in o.frames} for o in (outcome, other))
    shared = [name for name in a if name in b]
    for name in shared:
        wcs = [tangent(o[n].header) for o in (a, b) for n in (shared[0], name)]
        assert all(w is not None for w in wcs)
        x, y = 256.0, 256.0
        ends = [wcs[k + 1].to_pixel(*wcs[k].to_sky(x, y)) for k in (0, 2)]  # type: ignore[union-attr]
        changes.append(float(np.hypot(*np.subtract(*ends))))
    return Figure(outcome.case.name, "change of registration of the rest, pix", max(changes), 0.001)


# -- light ------------------------------------------------------------------------------------------------


def star_ratios(outcome: Outcome) -> tuple[Any, Any, Any, Expected]:
    """(magnitudes, measured / true, error of that, what is expected) of clean stars of the stack."""
    product = outcome.product
    expected = expect_image(outcome.truth, product)
    chosen = clean_stars(product, expected)
    first = outcome.truth.frames[product.inputs()[0]]
    field = next(f for f in outcome.truth.facts["fields"] if f["field"] == first["field"])
    mag = np.array([source["mag"] for source in field["sources"]])[chosen]
    x, y, electrons = expected.stars[chosen].T
    sci, var = (np.ascontiguousarray(plane) for plane in (product.sci, product.var))
    flagged = product.dq != 0
    ratio = aperture_fluxes(sci, x, y, flagged) / aperture_fluxes(
        expected.star_image + expected.galaxy_image, x, y
    )
    inner, outer = ANNULUS
    share = (APERTURE**2 / (outer**2 - inner**2)) ** 2
    noise = sep.sum_circle(var, x, y, APERTURE, subpix=0)[0]
    noise += share * sep.sum_circann(var, x, y, inner, outer, mask=flagged, subpix=0)[0]
    return mag, ratio, np.sqrt(noise) / electrons, expected


def fluxes(outcome: Outcome, limit: float = 0.005) -> Iterator[Figure]:
    """Bright, middle and faint stars of the stack, a third each: flux over truth, against each other.

    With fewer stars there are two parts; with fewer than six the figure is infinite: nothing was compared.
    """
    mag, ratio, error, _ = star_ratios(outcome)
    usable = np.flatnonzero(np.isfinite(ratio) & (mag < FAINTEST))
    usable = usable[np.argsort(mag[usable], kind="stable")]
    middles = []
    for here in np.array_split(usable, 3 if len(usable) >= 3 * THIRD else 2):
        if len(here) >= THIRD:
            predicted = 1.2533 * float(np.sqrt(np.mean(error[here] ** 2))) / np.sqrt(len(here))
            middles.append((float(np.median(ratio[here])), max(median_error(ratio[here]), predicted)))
    pairs = [
        (a[0] - b[0], float(np.hypot(a[1], b[1]))) for i, a in enumerate(middles) for b in middles[i + 1 :]
    ]
    worst = max(pairs, key=lambda pair: abs(pair[0]) - 3 * pair[1], default=(np.inf, 0.0))
    yield Figure(outcome.case.name, "fluxes against each other", worst[0], limit, worst[1])


def transparencies(outcome: Outcome, limit: float = 0.03) -> Iterator[Figure]:
    """What the product says of each frame's transparency, against the truth, relative to the others."""
    off, errors, unknown = [], [], 0
    for name, facts in outcome.truth.frames.items():
        row = outcome.row(name)
        if row is None or "TRANSPARENCY" not in row.dtype.names or not np.isfinite(row["TRANSPARENCY"]):
            unknown += 1
            continue
        off.append(-2.5 * np.log10(float(row["TRANSPARENCY"]) / facts["transparency"]))
        errors.append(float(row["TRANSP_ERR"]) / float(row["TRANSPARENCY"]))
    yield Figure(outcome.case.name, "frames without a transparency", unknown, 0)
    if off:
        off = np.array(off) - np.median(off)
        worst = int(np.argmax(np.abs(off)))
        claimed = 1.0857 * np.nan_to_num(np.array(errors), nan=0.0)
        yield Figure(
            outcome.case.name, "transparency of a frame, mag", float(off[worst]), limit, float(claimed[worst])
        )
        yield Figure(
            outcome.case.name,
            "the same less 5 claimed errors, mag",
            float(max(0, (np.abs(off) - 5 * claimed).max())),
            0.02,
        )


def stars_in_place(outcome: Outcome, limit: float = 0.05) -> Iterator[Figure]:
    """Median offset of the stars of the stack from where the truth, with the anchor's header, has them."""
    mag, _, error, expected = star_ratios(outcome)
    chosen = clean_stars(outcome.product, expected)
    bright = (error < 1 / 60) & (mag > 14.0)
    if not bright.any():
        return
    x, y, _ = expected.stars[chosen][bright].T
    product = outcome.product
    smooth = product.sci - expected.galaxy_image - np.float32(np.median(product.sci[product.dq == 0]))
    wx, wy, _ = sep.winpos(np.ascontiguousarray(smooth), x, y, expected.fwhm / 2.3548, subpix=0)
    off = float(np.hypot(np.median(wx - x), np.median(wy - y)))
    yield Figure(
        outcome.case.name,
        "stars of the stack off their place, pix",
        off,
        limit,
        float(np.hypot(median_error(wx - x), median_error(wy - y))),
    )


def deep_noise(product: Product) -> float:
    return float(np.median(np.sqrt(product.var[product.dq == 0])))


def same_as(outcome: Outcome, other: Outcome, limit: float = 0.01) -> Iterator[Figure]:
    """Noise and fluxes against the stack that was made without the frame."""
    noise = deep_noise(outcome.product) / deep_noise(other.product) - 1
    yield Figure(outcome.case.name, "sqrt(VAR) / that without the frame - 1", noise, limit)
    if outcome.product.sci.shape == other.product.sci.shape:
        good = (outcome.product.dq == 0) & (other.product.dq == 0)
        off = (outcome.product.sci - other.product.sci)[good] / np.sqrt(other.product.var[good])
        yield Figure(
            outcome.case.name, "values - those without the frame, sigma (spread)", spread(off), limit
        )
    else:
        yield Figure(outcome.case.name, "another shape than without the frame", 1, 0)


def left_out(outcome: Outcome, wanted: bool = True) -> Iterator[Figure]:
    """Victims are not among the inputs, nor a sky for others, and a note says so; or the other way round."""
    inputs = outcome.product.inputs()
    for name in outcome.case.victims:
        wrong = (name in inputs) if wanted else (name not in inputs)
        yield Figure(
            outcome.case.name, f"{'used' if wanted else 'left out'} against the table", int(wrong), 0
        )
        if wanted:
            yield Figure(
                outcome.case.name, "not noted with figure and limit", int(not outcome.noted(name)), 0
            )
