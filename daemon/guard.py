"""Is this environment ours alone? `daemon` and `pipeline` are names that other distributions use too.

python-daemon installs a package `daemon`, django-pipeline a package `pipeline`. Installed beside us,
they replace our files without a word, so the program looks before it starts. Relies on nothing in
`daemon/__init__.py`, which may be theirs.
"""

from __future__ import annotations

import sys
from importlib import metadata

from nirid_start import foreign

DISTRIBUTION = "nirid"
PACKAGES = ("daemon", "pipeline")


def intruders() -> dict[str, list[str]]:
    """{package: other distributions that provide it}; empty when all is well. Takes about 0.1 s."""
    providers = metadata.packages_distributions()
    found = {package: set(providers.get(package, ())) - {DISTRIBUTION} for package in PACKAGES}
    if any(found.values()) and (theirs := foreign()):  # these come last, see `nirid_start`
        ours = [entry for entry in sys.path if entry not in theirs]
        beside = {one.metadata["Name"] for one in metadata.distributions(path=ours)}
        found = {package: names & beside for package, names in found.items()}
    return {package: sorted(names) for package, names in found.items() if names}


def complaint() -> str | None:
    """One line that says who is in the way, or None."""
    found = intruders()
    if not found:
        return None
    who = "; ".join(
        f"'{', '.join(names)}' also provides the package '{package}'" for package, names in found.items()
    )
    return f"{who}: install {DISTRIBUTION} into a virtual environment of its own"
