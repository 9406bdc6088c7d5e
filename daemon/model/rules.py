"""When a recipe starts: rules as data. The planner that applies them is `daemon/plan/planner.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.headers.descriptors import Descriptors
from pipeline.levels import Breakpoint
from pipeline.params import bounded


@dataclass(frozen=True)
class Ingredient:
    """A kind of frame that a recipe needs, and how many."""

    tags: frozenset[str] = bounded(frozenset(), doc="a frame that has all of these")
    at_least: int = bounded(1, ge=0, doc="this many start the recipe")
    at_worst: int | None = bounded(
        None, doc="this many are enough after calibration_wait_hours, with a warning"
    )
    limits: Mapping[str, tuple[float, float]] = field(
        default_factory=dict, metadata={"doc": "{descriptor = [from, to]}, inclusive"}
    )

    def takes(self, tags: frozenset[str], descriptors: Descriptors) -> bool:
        def inside(name: str, low: float, high: float) -> bool:
            value = getattr(descriptors, name)
            return value is not None and low <= value <= high

        return self.tags <= tags and all(inside(name, *ends) for name, ends in self.limits.items())

    @property
    def least(self) -> int:
        """The number below which the recipe cannot run at all."""
        return self.at_least if self.at_worst is None else self.at_worst


@dataclass(frozen=True)
class Join:
    """A second group that a recipe needs: for a bad-pixel mask, the nearest complete group of short darks."""

    rule: str = bounded("", doc="name of the trigger whose groups are meant")
    at_least: int = bounded(3, ge=1, doc="frames in it")
    max_exposure_time: float = bounded(2.0, gt=0, doc="seconds, all coadds")
    agree: tuple[str, ...] = bounded((), doc="descriptors that are equal in both groups")
    within_days: float = bounded(10.0, gt=0, doc="farthest in time, before or after")


@dataclass(frozen=True)
class TriggerRule:
    """When one recipe starts. A frame may serve several rules; no frame is used up."""

    recipe: str = bounded("", doc="name of the recipe")
    name: str = bounded("", doc="name of the rule; empty is the recipe's")
    ingredients: tuple[Ingredient, ...] = bounded((), doc="a frame that fits one of them belongs to the rule")
    exclude: frozenset[str] = bounded(frozenset(), doc="unless it carries one of these tags")
    observation_type: str = bounded("", doc="OBSTYPE that it must have; empty is any")
    role: Literal["", "science", "standard"] = bounded(
        "", doc="what kind of OBJECT frame, see rules of the house"
    )
    thermal: bool = bounded(
        False, doc="only frames in a filter whose sky is as bright as a lamp, and that no flat is given for"
    )
    pointings: int = bounded(0, ge=0, doc="so many different pointings")
    group_by: tuple[str, ...] = bounded((), doc="descriptors that agree within a group")
    group_lamp_on_by: tuple[str, ...] = bounded(
        (),
        doc="more of them for frames whose lamp was on; frames whose lamp was off go with every such group",
    )
    max_gap_seconds: float = bounded(3600.0, gt=0, doc="a longer pause between exposures starts a new group")
    quiet_seconds: float = bounded(60.0, ge=0, doc="a group is quiet after the longest of: this ...")
    quiet_cadence: float = bounded(
        2.0, ge=0, doc="... this many times its longest interval between starts ..."
    )
    quiet_exposures: float = bounded(2.0, ge=0, doc="... this many exposures ...")
    quiet_overhead: float = bounded(60.0, ge=0, doc="... with this many seconds added")
    only_if_needed_below: float = bounded(
        0.0, ge=0, doc="exposures (s) up to this long make a calibration only if some OBJECT frame matches it"
    )
    join: Join | None = None

    @property
    def title(self) -> str:
        return self.name or self.recipe


_OBJECT_GROUP = (
    "program_id", "observation_id", "filter_name", "camera", "focal_plane_mask", "disperser",
    "exposure_time", "coadds", "read_mode", "well_depth", "data_section", "is_ao",
)  # fmt: skip
_FLAT_GROUP = (
    "filter_name", "camera", "focal_plane_mask", "disperser", "well_depth", "data_section", "read_mode",
    "exposure_time", "coadds", "gcal_filter",
)  # fmt: skip
_LAMP = ("gcal_lamp_raw",)  # as the header names it, whether it was on or not
LAMP_TAGS = frozenset({"NIRI", "RAW", "FLAT", "IMAGE"})
_NOT_FLAT = frozenset({"TWILIGHT", "ARC", "SPECT", "DARK", "PROCESSED"})
_OBJECT_TAGS = frozenset({"NIRI", "RAW", "IMAGE"})
_NOT_OBJECT = frozenset({"TWILIGHT", "ACQUISITION", "SPECT", "ARC", "PROCESSED"})

DEFAULT_RULES: tuple[TriggerRule, ...] = (
    TriggerRule(
        "makeProcessedDark",
        ingredients=(Ingredient(frozenset({"NIRI", "DARK", "RAW"}), 3, at_worst=1),),
        exclude=frozenset({"PROCESSED"}),
        observation_type="DARK",
        group_by=("exposure_time", "coadds", "read_mode", "well_depth", "data_section"),
        only_if_needed_below=2.0,
    ),
    TriggerRule(
        "makeProcessedFlat",
        ingredients=(
            Ingredient(LAMP_TAGS | {"LAMPON"}, 3, at_worst=1),
            Ingredient(LAMP_TAGS | {"LAMPOFF"}, 3, at_worst=0),
        ),
        exclude=_NOT_FLAT,
        observation_type="FLAT",
        group_by=_FLAT_GROUP,
        group_lamp_on_by=_LAMP,
    ),
    TriggerRule(
        "makeProcessedBPM",
        ingredients=(Ingredient(LAMP_TAGS | {"LAMPON"}, 3), Ingredient(LAMP_TAGS | {"LAMPOFF"}, 3)),
        exclude=_NOT_FLAT,
        observation_type="FLAT",
        group_by=_FLAT_GROUP,
        group_lamp_on_by=_LAMP,
        join=Join("makeProcessedDark", at_least=3, agree=("data_section", "well_depth")),
    ),
    TriggerRule(
        "reduce",
        "standard",
        ingredients=(Ingredient(_OBJECT_TAGS, 2),),
        exclude=_NOT_OBJECT,
        observation_type="OBJECT",
        role="standard",
        group_by=_OBJECT_GROUP,
    ),
    TriggerRule(
        "reduce",
        "science",
        ingredients=(Ingredient(_OBJECT_TAGS, 3, at_worst=2),),
        exclude=_NOT_OBJECT,
        observation_type="OBJECT",
        role="science",
        group_by=_OBJECT_GROUP,
    ),
    TriggerRule(
        "makeSkyFlat",
        ingredients=(Ingredient(_OBJECT_TAGS, 5),),
        exclude=_NOT_OBJECT,
        observation_type="OBJECT",
        role="science",
        thermal=True,
        pointings=5,
        group_by=_OBJECT_GROUP,
    ),
)


# s; a frame of the same programme that is later than the last of a group by more ends the wait for more.
MOVED_ON = 600.0


@dataclass(frozen=True)
class Policy:
    """Numbers of planning that an operator may want."""

    calibration_wait_hours: float = bounded(
        12.0, ge=0, doc="running time that a short group or a missing dark of science is waited for"
    )
    healing_days: float = bounded(
        3.0,
        ge=0,
        doc="a calibration of level 2 or 3, or a static mask, that came late remakes what is this near",
    )
    keep_frames: int = bounded(4, ge=1, doc="the first frame is left out only if this many remain")
    same_pointing_arcsec: float = bounded(
        1.0, ge=0, doc="pointings this near are one: such a group has no sky"
    )
    borrow_sky_seconds: float = bounded(900.0, ge=0, doc="it may borrow sky taken this near in time ...")
    sky_field_fraction: float = bounded(0.9, gt=0, doc="... and farther away than this part of the field")
    breakpoints: tuple[Breakpoint, ...] = ()  # tables of their own in the configuration, in order of time


DEFAULT_POLICY = Policy()
