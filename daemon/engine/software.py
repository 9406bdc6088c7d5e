"""What the bits of a product depend on beside its inputs: versions, and what the processor can do.

Versions are in the header of every product, because another version may give other bits. What the processor
can do is in the ledger only (event `job_done`, field `processor`): where it makes no difference to the bits,
a product must not tell on which machine it was made.
"""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

# With other versions the bits of a product would depend on which worker made it.
PACKAGES = ("nirid", "numpy", "scipy", "astropy", "numba", "sep")
# Cards of a product's primary header. That of nirid is in each row of its HISTORY.
CARDS = {name: name.upper() for name in ("python", *PACKAGES[1:])} | {"processor": "MACHINE"}


def versions() -> dict[str, str]:
    """Of everything that must be the same in the daemon and in its workers."""
    installed = {name: _installed(name) for name in PACKAGES}
    return {**installed, "python": platform.python_version(), "processor": platform.machine()}


def in_words() -> str:
    return ", ".join(f"{name} {version}" for name, version in versions().items())


@cache
def _installed(name: str) -> str:
    return metadata.version(name)


def cards() -> dict[str, tuple[str, str]]:
    """The versions for the header of a product."""
    mine = versions()
    told = {"python": "version of Python that ran", "processor": "architecture of the processor"}
    return {
        card: (mine[name], told.get(name, f"version of {name} that was used")) for name, card in CARDS.items()
    }


@cache
def processor() -> str:
    """What the processor can do, for comparison: its kind as the compiler of the loops sees it, then the
    groups of instructions that numpy has found and may use. Loads both: for workers and `nirid doctor`."""
    import numpy as np
    from llvmlite.binding import get_host_cpu_name

    found = np.show_config(mode="dicts") or {}
    groups = found.get("SIMD Extensions", {})
    names = [*groups.get("baseline", ()), *groups.get("found", ())]
    return f"{platform.machine()} {get_host_cpu_name()}: {' '.join(names) or 'no extensions'}"
