"""The names of frames and products: one scheme, described in docs/toolkit.md.

A frame's name is its file's without compression; where two files of a list have the same, the folders that
tell them apart go before it. A product's name is that of its first frame and a suffix. The root of a name is
what no step has added: before the first underscore in Gemini's names (N20160102S0270_skyCorrected), else
without the one suffix at its end that is a step's or a recipe's (M82_0_skyCorrected is of M82_0).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence

COMPRESSED = (".gz", ".bz2", ".fz")
_FITS = (".fits", *(f".fits{ending}" for ending in COMPRESSED))
GEMINI = re.compile(r"[NS]\d{8}S\d{4,}")

# By which Gemini's users know the frames after a step.
STEP_SUFFIXES = {
    "prepare": "_prepared", "addDQ": "_dqAdded", "ADUToElectrons": "_ADUToElectrons", "addVAR": "_varAdded",
    "nonlinearityCorrect": "_nonlinearityCorrected", "darkCorrect": "_darkCorrected",
    "flatCorrect": "_flatCorrected", "separateSky": "_skySeparated", "associateSky": "_skyAssociated",
    "skyCorrect": "_skyCorrected", "cleanReadout": "_readoutCleaned", "detectSources": "_sourcesDetected",
    "adjustWCSToReference": "_wcsCorrected", "resampleToCommonFrame": "_align",
    "scaleCountsToReference": "_countsScaled", "stackFrames": "_stack", "stackDarks": "_stack",
    "makeLampFlat": "_lampstack", "normalizeFlat": "_normalized", "makeBPM": "_bpm",
    "thresholdFlatfield": "_thresholdFlatfielded",
}  # fmt: skip
RECIPE_SUFFIXES = ("_dark", "_flat", "_bpm", "_image", "_firstlook", "_running", "_stack", "_skyflat")
_KNOWN = re.compile(
    r"(_(ql|qa))?("
    + "|".join(sorted({*STEP_SUFFIXES.values(), *RECIPE_SUFFIXES}, key=len, reverse=True))
    + r")$"
)


def suffix_of(step: str) -> str:
    """What is put after the name of a frame that a step has done, as _skyCorrected."""
    return STEP_SUFFIXES.get(step, f"_{step}")


def is_fits(name: str) -> bool:
    """True for the name of a FITS file, compressed or not, in any case; never for a hidden one."""
    return name.lower().endswith(_FITS) and not name.startswith(".")


def plain_name(path: str | os.PathLike[str]) -> str:
    """The name of a file without folder and compression: N20160102S0270.fits."""
    return _unpacked(os.path.basename(os.fsdecode(path)))


def _unpacked(name: str) -> str:
    ending = next((e for e in COMPRESSED if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)]


def bare(name: str) -> str:
    """A name, with its folders, without the endings .fits, .fits.gz, .FITS ..."""
    unpacked = _unpacked(name)
    return unpacked[:-5] if unpacked.lower().endswith(".fits") else unpacked


def file_name(name: str) -> str:
    """What the file of this name is called, without folder and compression: N20160102S0423_dark.fits."""
    plain = plain_name(name)
    return plain if plain.lower().endswith((".fits", ".fit")) else f"{plain}.fits"


def base_of(name: str) -> str:
    """A name without folder, compression and .fits."""
    return bare(os.path.basename(name))


def is_named(name: str, words: Iterable[str]) -> bool:
    """True when one of the words, as a person gives them for frames, is in the name; endings do not count."""
    return any(bare(word) in name for word in words)


def root_of(name: str) -> str:
    """N20160102S0270 from any of N20160102S0270.fits, dir/N20160102S0270_dark.fits.gz ...; M82_0 from
    M82_0_skyCorrected.fits. Never empty where the name is not."""
    base = base_of(name)
    if GEMINI.match(base):
        return base.split("_")[0]
    if base.startswith("bpm_"):
        return base
    return _KNOWN.sub("", base) or base


def canonical_first(name: str) -> tuple[int, str]:
    """Sorts the names of one exposure: Gemini's own first, then those that begin so, then others."""
    base = base_of(name)
    own = 0 if GEMINI.fullmatch(base) else 1 if GEMINI.match(base) else 2
    return own, name


def told_apart(paths: Sequence[str], plain: bool = True) -> list[str]:
    """A name for each file: without compression, behind as many of its folders as tell it from the others.

    plain : False keeps the endings of compression
    """
    name_of = plain_name if plain else os.path.basename
    names = [name_of(path) for path in paths]
    places = [os.path.realpath(path).split(os.sep) for path in paths]
    depth = 1
    while clash := {name for name, count in Counter(names).items() if count > 1}:
        depth += 1
        for number, parts in enumerate(places):
            if names[number] in clash:
                # Beside one another, as a.fits and a.fits.gz: by their full names.
                beside = depth > len(parts)
                names[number] = parts[-1] if beside else "/".join([*parts[-depth:-1], name_of(parts[-1])])
        if depth > max(len(parts) for parts in places) + 1:
            break
    return names


def stems(names: Iterable[str]) -> list[str]:
    """What the products of these frames are named for: their roots, with folders where these are the same."""
    names = list(names)
    made = [root_of(name) for name in names]
    for longer in (_with_folders, lambda name: re.sub(r"[/.]", "-", name)):
        clash = {stem for stem, count in Counter(made).items() if count > 1}
        made = [longer(n) if stem in clash else stem for n, stem in zip(names, made, strict=True)]
    clash = {stem for stem, count in Counter(made).items() if count > 1}
    seen = Counter[str]()
    for number, stem in enumerate(made):
        if stem in clash:
            seen[stem] += 1
            made[number] = f"{stem}-{seen[stem]}"
    return made


def _with_folders(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/{base_of(last)}".lstrip("/").replace("/", "-")
