"""What an imaging frame of the sky is for: science or a standard star. There is no tag for it."""

from __future__ import annotations

from pipeline.headers import standards
from pipeline.headers.descriptors import Descriptors

_NO_RECIPE = frozenset({"TWILIGHT", "ACQUISITION", "SPECT", "ARC"})
_NO_RECIPE_CLASSES = frozenset({"acq", "acqCal", "dayCal"})


def role_of(tags: frozenset[str], descriptors: Descriptors) -> tuple[str, str]:
    """("standard" | "science" | "", why) for a raw frame; or of a product of one.

    A programme's own calibration that is in no list is reduced like a standard, without a zero point.
    """
    kind, name = descriptors.observation_class, descriptors.object or ""
    if descriptors.observation_type != "OBJECT" or "IMAGE" not in tags:
        return "", f"{descriptors.observation_type or 'no OBSTYPE'} is not an imaging OBJECT frame"
    if found := tags & _NO_RECIPE:
        return "", f"no recipe for {', '.join(sorted(found))}"
    if kind in _NO_RECIPE_CLASSES:
        return "", f"no recipe for class {kind}"
    if "focus" in name.lower():
        return "", f"no recipe for a focus frame ({name})"
    if kind == "partnerCal":
        return "standard", "class partnerCal"
    if star := standards.find(name):
        return "standard", f"{name} is in the list of standards as {star.name}"
    if kind == "progCal":
        return "standard", "class progCal: calibration imaging"
    if kind in (None, "science"):
        return "science", f"class {kind}" if kind else "no class"
    return "", f"no recipe for class {kind}"
