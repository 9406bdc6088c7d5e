"""Frames, groups and a world for the planner."""

from dataclasses import dataclass, field, replace
from datetime import timedelta

from daemon.model.groups import Current, Group, Member, Setting, forced_in
from daemon.model.rules import DEFAULT_RULES
from daemon.plan.planner import plan
from pipeline.association import RULES, CalKind, Candidate
from tests.night import NIGHT, RECIPES, describe, sha

RULE = {rule.title: rule for rule in DEFAULT_RULES}


TAGS = {
    "science": {"NIRI", "RAW", "IMAGE"},
    "dark": {"NIRI", "RAW", "DARK", "CAL"},
    "lampon": {"NIRI", "RAW", "FLAT", "IMAGE", "LAMPON"},
    "lampoff": {"NIRI", "RAW", "FLAT", "IMAGE", "LAMPOFF"},
}


def member(kind, number, seconds=None, *, usable=True, **changes):
    d = describe(kind, number, 30 * number if seconds is None else seconds, **changes)
    tags = frozenset(TAGS.get(kind, TAGS["science"]))
    name = f"N20160102S{number:04d}.fits"
    return Member(
        number, d.data_label, sha(name), sha(d), name, d.ut_datetime, tags, d, f"/drop/{name}", sha(1), usable
    )


def group(rule, members, **more):
    return Group(1, rule, "key", tuple(sorted(members, key=lambda m: m.order)), **more)


@dataclass
class World:
    stored: list = field(default_factory=list)
    darks: list = field(default_factory=list)
    near: list = field(default_factory=list)
    overrides: dict = field(default_factory=dict)
    gone: set = field(default_factory=set)
    accepted: set = field(default_factory=set)
    held: list = field(default_factory=list)
    wanted: bool = True

    def candidates(self, kind, target):
        return [c for c in self.stored if c.kind is kind]

    def joined(self, join, group):
        return self.darks

    def needed(self, kind, descriptors):
        return self.wanted

    def neighbours(self, group):
        return self.near

    def parameters(self, recipe, descriptors):
        return self.overrides

    def forced_in(self, member):
        return member.name in self.accepted

    def held_back(self, kind, target):
        return [(c, why) for c, why in self.held if c.kind is kind]

    def withdrawn(self, ident):
        return ident in self.gone


def decide(the_group, world=None, **setting):
    made = Setting(RULE, RECIPES, products="/products", **setting)
    return plan([the_group], made, world or World())[0]


def calibration(kind, name="cal", days=0.0, **more):
    facts = {f: getattr(describe("science", 1, 0), f) for f in (*RULES[kind].match, *RULES[kind].tolerance)}
    return Candidate(kind, name, f"ident of {name}", facts, NIGHT + timedelta(days=days), **more)


FLAT, DARK = calibration(CalKind.FLAT, "flat"), calibration(CalKind.DARK, "dark")


SCIENCE = [member("science", n) for n in range(1, 6)]


DARKS = [member("dark", n) for n in range(1, 4)]


LPRIME = {"filter_name": "Lprime_G0207"}


def thermal(name, days=0.0, **more):
    made = calibration(CalKind.FLAT, name, days, **more)
    return replace(made, facts=made.facts | LPRIME)


def current(spec):
    return Current(
        spec.key,
        tuple((i.data_sha, i.facts) for i in spec.inputs),
        {role: tuple(c.key for c in spec.calibrations if c.role == role) for role in CalKind},
        spec.parameters.get("removeFirstFrame:remove_first"),
        forced_in(spec.parameters),
    )
