"""Draws the pictures of science.md from a simulated night whose truth is known.

python docs/figures.py [FOLDER FOR THE NIGHT]        # a minute; needs matplotlib
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from astropy.io import fits
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import accuracy
from pipeline.simulate.truth import Product, Truth, spread
from pipeline.simulate.verify_image import APERTURE, Expected, aperture_fluxes, clean_stars, expect_image

HERE = Path(__file__).resolve().parent
PRESETS = {"nirid": "C0", "dragons": "C1"}
plt.rcParams.update({"font.size": 8, "figure.dpi": 90, "savefig.bbox": "tight"})


@dataclass(frozen=True)
class Stack:
    """A reduced night: the product, the stack that it should be, and the frames that went in."""

    product: Product
    expected: Expected
    frames: list[Any]  # on the product's grid

    @property
    def residual(self) -> Any:
        return self.product.sci - self.expected.star_image - self.expected.galaxy_image

    @property
    def empty(self) -> Any:
        """Pixels of full depth where nothing shines."""
        full = self.expected.depth == len(self.expected.origins)
        noise = np.sqrt(self.product.var)
        return full & (self.product.dq == 0) & (self.expected.star_image < 0.05 * noise)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(sys.argv[1] if len(sys.argv) > 1 else scratch).absolute()
        folder = accuracy.night(data, "stellar", 0)
        truth, stacks = Truth(folder), {}
        for preset in PRESETS:
            (work := Path(scratch) / preset).mkdir()
            *_, done = accuracy.reduce_night(folder, preset, work)
            product = Product.read(done.path)
            stacks[preset] = Stack(product, expect_image(truth, product), done.seen[accuracy.STEPS[-1]])
        pictures = {"stack": before_and_after(folder, stacks["nirid"]), "rays": cosmic_rays(truth, stacks),
                    "noise": noise(stacks), "stars": stars(stacks)}  # fmt: skip
        for name, picture in pictures.items():
            path = HERE / "science" / f"{name}.png"
            picture.savefig(path)
            Image.open(path).convert("RGB").quantize(24).save(path, optimize=True)  # noise does not compress
            print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


def _show(axis: Any, image: Any, title: str, low: float, high: float) -> None:
    axis.imshow(image, cmap="gray_r", origin="lower", vmin=low, vmax=high, interpolation="nearest")
    axis.set_title(title)
    axis.set_axis_off()


def before_and_after(folder: Path, stack: Stack) -> Any:
    """A raw frame, the same through flatCorrect and skyCorrect, the stack, and what is left of it."""
    name = stack.product.inputs()[0]
    raw = fits.getdata(folder / f"{name}.fits").astype(float)
    x0, y0 = (round(v) for v in stack.expected.origins[0])
    part = np.s_[380:620, 420:660]
    there = np.s_[part[0].start + y0 : part[0].stop + y0, part[1].start + x0 : part[1].stop + x0]
    noise = float(np.sqrt(np.median(stack.product.var[there])))
    single = noise * np.sqrt(len(stack.frames))
    figure, axes = plt.subplots(1, 4, figsize=(10, 2.8))
    middle, width = np.median(raw[part]), spread(raw[part])
    _show(axes[0], raw[part], "raw, ADU", middle - 3 * width, middle + 5 * width)
    _show(
        axes[1], stack.frames[0].sci[there], "one frame, calibrated, sky taken off", -3 * single, 6 * single
    )
    _show(axes[2], stack.product.sci[there], f"stack of {len(stack.frames)}", -3 * noise, 6 * noise)
    pulls = stack.residual[there] / np.sqrt(stack.product.var[there])
    _show(axes[3], pulls, "(stack - truth) / sqrt(VAR)", -4, 4)
    return figure


def cosmic_rays(truth: Truth, stacks: dict[str, Stack]) -> Any:
    """The patch with the most strong hits in a frame: that frame, and both stacks."""
    size, best = 60, (0, 0, 0, 0)
    mine = stacks["nirid"]
    for k, frame in enumerate(mine.product.inputs()):
        hits = np.array(truth.frames[frame]["cosmic_ray_pixels"])
        rows, columns = (hits[hits[:, 2] > 3000, :2]).astype(int).T
        counts, _, _ = np.histogram2d(rows, columns, bins=np.arange(120, 905, size))
        i, j = np.unravel_index(counts.argmax(), counts.shape)
        best = max(best, (int(counts.max()), k, 120 + size * int(i), 120 + size * int(j)))
    _, k, row, column = best
    x0, y0 = (round(v) for v in mine.expected.origins[k])
    patch = np.s_[row + y0 : row + y0 + size, column + x0 : column + x0 + size]
    noise = float(np.sqrt(np.median(mine.product.var[patch])))
    single = noise * np.sqrt(len(mine.frames))
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.7))
    _show(axes[0], mine.frames[k].sci[patch], "one frame", -3 * single, 10 * single)
    for axis, (preset, stack) in zip(axes[1:], stacks.items(), strict=True):
        _show(axis, stack.product.sci[patch], f"stack, preset {preset}", -3 * noise, 10 * noise)
    return figure


def noise(stacks: dict[str, Stack]) -> Any:
    """Scatter of sums over blocks against VAR, and of single pixels against VAR x NOISECOR² by depth."""
    figure, (blocks, pixels) = plt.subplots(1, 2, figsize=(8, 3))
    sizes = (1, 2, 4, 8, 16)
    for preset, stack in stacks.items():
        pulls = np.where(stack.empty, stack.residual / np.sqrt(np.maximum(stack.product.var, 1e-6)), np.nan)
        ratios = []
        for size in sizes:
            ny, nx = (n // size for n in pulls.shape)
            sums = pulls[: ny * size, : nx * size].reshape(ny, size, nx, size).sum(axis=(1, 3)) / size
            ratios.append(spread(sums[np.isfinite(sums)]))
        blocks.plot(sizes, ratios, "o-", color=PRESETS[preset], label=preset)
        if preset == "nirid":
            correction = stack.product.header["NOISECOR"]
            blocks.plot(1, ratios[0] / correction, "s", mfc="none", color=PRESETS[preset], label="/ NOISECOR")
    blocks.axhline(1, color="0.7", zorder=0)
    blocks.set(
        xscale="log", xlabel="side of the block, pixels", ylabel="measured / predicted noise of its sum"
    )
    blocks.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    blocks.legend()
    mine = stacks["nirid"].product
    dark_sky = (mine.dq == 0) & (stacks["nirid"].expected.star_image < 0.05 * np.sqrt(mine.var))
    for depth in range(1, int(mine.coverage.max()) + 1):  # type: ignore[union-attr]
        here = dark_sky & (mine.coverage == depth)
        if here.sum() > 2000:
            predicted = np.sqrt(np.median(mine.var[here])) * mine.header["NOISECOR"]
            pixels.plot(predicted, spread(stacks["nirid"].residual[here]), "o", color="C0")
            pixels.annotate(str(depth), (predicted, spread(stacks["nirid"].residual[here])),
                            xytext=(4, -8), textcoords="offset points")  # fmt: skip
    ends = np.array(pixels.get_xlim())
    pixels.plot(ends, ends, color="0.7", zorder=0)
    pixels.set(xlabel="sqrt(VAR) x NOISECOR, electrons", ylabel="scatter of single pixels",
               title="numbers: frames at the pixel")  # fmt: skip
    return figure


def stars(stacks: dict[str, Stack]) -> Any:
    """Flux of isolated stars over truth, with the errors that VAR gives."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True)
    for axis, (preset, stack) in zip(axes, stacks.items(), strict=True):
        product, expected = stack.product, stack.expected
        x, y, electrons = expected.stars[clean_stars(product, expected)].T
        sci, flagged = np.ascontiguousarray(product.sci), product.dq != 0
        measured = aperture_fluxes(sci, x, y, flagged)
        true = aperture_fluxes(expected.star_image + expected.galaxy_image, x, y)
        level = np.median(product.var[stack.empty])
        error = np.sqrt(np.pi * APERTURE**2 * level + electrons / len(stack.frames)) / true
        axis.axhline(1, color="0.7", zorder=0)
        axis.errorbar(electrons, measured / true, error, fmt="o", ms=3, lw=0.8, color=PRESETS[preset])
        axis.set(xscale="log", xlabel="electrons of the star", title=f"preset {preset}", ylim=(0.9, 1.1))
    axes[0].set_ylabel(f"flux within {APERTURE:g} pixels / truth")
    return figure


if __name__ == "__main__":
    main()
