"""Products held against the truth of a simulated night.

    for check in check_products(night, {"dark": path, "flat": path, "science": path}):
        print("ok " if check.ok else "BAD", check.sentence)

Robust statistics throughout (median, 1.4826 x median absolute deviation), pixels with DQ = 0 only. A limit
holds as the stated value or three standard errors of the statistic, whichever is wider. "pull" is the
scatter of (product - truth) in units of the product's own sqrt(VAR).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.simulate.detector import GAIN
from pipeline.simulate.truth import Check, Product, Truth, around, check, median_error, spread, spread_error
from pipeline.simulate.verify_image import check_image

__all__ = ["Check", "check_products"]

HOT_FOUND_ELECTRONS = 1400.0  # in the short darks: the mask's limit of 1300 with a margin for noise


def check_products(night_folder: Path, products: Mapping[str, Path]) -> list[Check]:
    """Compare products with the truth of the night they were made from.

    products : by kind: dark, flat, bpm, science or image, standard (a prefix "processed_" is allowed).
    An unknown kind is a KeyError; a product whose inputs are not frames of the night, too.
    """
    checkers: dict[str, Callable[[Truth, Product], Iterator[Check]]] = {
        "dark": check_dark,
        "flat": check_flat,
        "bpm": check_bpm,
        **dict.fromkeys(("science", "image", "standard"), check_image),
    }
    truth = Truth(night_folder)
    found = []
    for kind, path in products.items():
        checker = checkers[kind.removeprefix("processed_")]
        for one in checker(truth, Product.read(path)):
            found.append(one._replace(name=f"{kind}: {one.name}", sentence=f"{kind}: {one.sentence}"))
    return found


def check_dark(truth: Truth, product: Product) -> Iterator[Check]:
    frame, size = truth.frames[product.inputs()[0]], product.sci.shape[0]
    rate = truth.image("dark", size)
    if rate is None:  # only the medians are known
        rate = np.full(product.sci.shape, truth.facts["dark_median_e_per_s"], np.float32)
    hot, _ = truth.defects(size)
    expected = frame["coadds"] * (truth.facts["pedestal_median_e"] + rate * frame["exptime"])
    good = (product.dq == 0) & (hot == 0)
    residual = (product.sci - expected)[good]
    # A mean of few frames is a comb with steps of GAIN / n, on which a median is no measure.
    step = GAIN / len(product.inputs())
    residual += step * (np.random.default_rng(0).random(residual.size) - 0.5)
    reach = 0.15 if "dark" in truth.facts else 2.0  # the median of the whole array is not that of a part
    yield around("median residual", float(np.median(residual)), 0, reach, median_error(residual), " e-")
    if "dark" in truth.facts:
        pull = spread(residual / np.sqrt(product.var[good]))
        low = 0.70 if frame.get("read_mode", "").startswith("Low") else 0.93
        yield check("pull", pull, low, 1.03 + 3 * spread_error(1, residual.size))


def check_flat(truth: Truth, product: Product) -> Iterator[Check]:
    response = truth.image("flat", product.sci.shape[0])
    if response is None:
        return
    good = product.dq == 0
    ratio = product.sci[good] / (response[good] / np.median(response[good]))
    # Noise smears the skew distribution of responses and so moves its median, on which the flat is
    # normalised, by about the noise squared: 1e-5 with ten frames of each kind, more with fewer.
    reach = max(1e-5, 3 * spread(ratio) ** 2)
    middle = float(np.median(ratio)) - 1
    # It also takes pixels across that median, some up and some down: the fewer there are, the less even.
    near = response[good] / np.median(response[good])
    density = float((np.abs(near - 1) < 0.005).mean()) / 0.01
    crossing = np.sqrt(0.8 * spread(ratio) / density / ratio.size)
    error = float(np.hypot(median_error(ratio), crossing))
    yield around("median ratio to the true flat - 1", middle, 0, reach, error)
    relative = np.sqrt(product.var[good]) / product.sci[good]
    yield check("scatter of the ratio", spread(ratio), 0, 1.05 * float(np.median(relative)))
    yield around("pull", spread((ratio - 1) / relative), 1, 0.03, spread_error(1, ratio.size))


def check_bpm(truth: Truth, product: Product) -> Iterator[Check]:
    flagged = (product.dq if product.dq.any() else product.sci) != 0
    hot, dead = truth.defects(flagged.shape[0])
    short = min(f["exptime"] * f["coadds"] for f in truth.frames.values() if f["kind"] == "dark")
    very_hot = hot * short > HOT_FOUND_ELECTRONS
    yield check("dead pixels found, fraction", float(flagged[dead].mean()), 1, 1)
    yield check("hot pixels found, fraction", float(flagged[very_hot].mean()), 1, 1)
    yield check("good pixels flagged", int((flagged & (hot == 0) & ~dead).sum()), 0, 0)
