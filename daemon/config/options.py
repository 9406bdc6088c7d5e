"""Every option: its section, type, bounds, default, and one line on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from daemon.model.rules import DEFAULT_POLICY, DEFAULT_RULES, Policy, TriggerRule
from pipeline.association import CalKind
from pipeline.files.places import expanded
from pipeline.levels import Breakpoint
from pipeline.params import bounded, type_hints

Origin = Literal["default", "file", "service", "command line"]


@dataclass(frozen=True)
class Watch:
    """Where frames land, and when one is complete."""

    folders: tuple[str, ...] = bounded(("drop",), doc="drop folders, with all their sub-folders")
    observer: Literal["auto", "native", "polling"] = bounded(
        "auto", doc="native events, or polling for network folders; auto tries native first"
    )
    settle_seconds: float = bounded(2.0, ge=0, doc="a file is read when it has not changed for this long")
    fast_settle_seconds: float = bounded(
        0.3, ge=0, doc="the same for a file that came in one piece, by rename or link"
    )
    grace_seconds: float = bounded(
        900.0,
        ge=0,
        doc="an incomplete file that does not change for this long is quarantined; a group waits so "
        "long for a frame whose file is gone",
    )
    sweep_seconds: float = bounded(
        30.0, gt=0, doc="how often the folders are listed; events only make it quicker"
    )
    poll_seconds: float = bounded(1.0, gt=0, doc="how often a polling observer looks")


@dataclass(frozen=True)
class Products:
    """Where products appear."""

    folder: str = bounded("products", doc="product folder: PRODUCTS/NIGHT/NAME_suffix.fits")


@dataclass(frozen=True)
class State:
    """What the daemon remembers."""

    folder: str = bounded(
        "", doc="database, lock and requests; empty is /var/lib/nirid of the service, else 'state'"
    )


@dataclass(frozen=True)
class Engine:
    """Where jobs run."""

    kind: Literal["local", "dask"] = bounded(
        "local", doc="worker processes on this machine; dask: those of a Dask cluster"
    )
    workers: int = bounded(2, ge=1, le=256, doc="jobs at the same time; of a Dask cluster, all its workers")
    job_seconds: float = bounded(
        900.0, gt=0, doc="a job that takes longer is killed; above 50 frames, in proportion"
    )
    memory_mb: int = bounded(1500, ge=300, doc="private memory of a worker; a job that wants more fails")
    jobs_per_worker: int = bounded(200, ge=1, doc="a worker is replaced by a fresh one after this many jobs")
    scheduler: str = bounded(
        "tcp://127.0.0.1:8786", doc="of the Dask cluster: tcp:// on loopback, or tls:// and three files"
    )
    tls_ca: str = bounded("", doc="certificate of the authority that has signed all others")
    tls_cert: str = bounded("", doc="our certificate")
    tls_key: str = bounded("", doc="its private key")

    @property
    def tls(self) -> dict[str, str]:
        """As Dask names them; {} without TLS."""
        files = {"tls_ca_file": self.tls_ca, "tls_client_cert": self.tls_cert, "tls_client_key": self.tls_key}
        return files if self.scheduler.startswith("tls:") else {}


@dataclass(frozen=True)
class Reduction:
    """How frames are reduced."""

    preset: Literal["nirid", "dragons"] = bounded(
        "nirid", doc="nirid, or dragons: every parameter as Gemini's package has it"
    )


@dataclass(frozen=True)
class Log:
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = bounded("info", doc="the least that is written")
    format: Literal["auto", "json", "console"] = bounded(
        "auto", doc="auto: colours at a terminal, else JSON lines"
    )


@dataclass(frozen=True)
class Looks:
    """Pictures before a sequence is complete, in PRODUCTS/NIGHT/quicklook."""

    first_looks: bool = bounded(True, doc="each science frame by itself, calibrated, as it comes")
    running_stacks: bool = bounded(True, doc="the stack of those that are there, growing with each frame")


@dataclass(frozen=True)
class Retention:
    """What is kept, and for how long. Nothing current, accepted, or named in a current product is removed."""

    superseded_days: float = bounded(
        30.0, ge=0, doc="a product that was replaced is kept for at least this long ..."
    )
    keep_versions: int = bounded(2, ge=0, doc="... and the newest so many of each group for ever")
    backups: int = bounded(7, ge=1, doc="nightly copies of the database that are kept, in STATE/backups")


@dataclass(frozen=True)
class Disk:
    """When work pauses because a disk is nearly full; it goes on at 1.5 times that room."""

    low_water_mb: int = bounded(
        2000, ge=0, doc="with less free for products or state (or than 3 of the biggest jobs) no job starts"
    )
    low_water_inodes: int = bounded(5000, ge=0, doc="the same, in number of files")


@dataclass(frozen=True)
class Web:
    """The page in a browser: `nirid web`, a process of its own."""

    hosts: tuple[str, ...] = bounded(
        ("127.0.0.1", "::1"),
        doc="addresses it listens at; others than this machine's own only with a token (nirid web --token)",
    )
    port: int = bounded(8321, ge=0, le=65535, doc="the same at each of them; 0 is any that is free")
    names: tuple[str, ...] = bounded((), doc="other names that it is called by, as behind a proxy")


@dataclass(frozen=True)
class Alerting:
    """Whom `nirid web` tells of what needs a person."""

    command: tuple[str, ...] = bounded(
        (), doc="a program and its arguments, given each new alert as JSON on its standard input; no shell"
    )
    seconds: float = bounded(20.0, gt=0, le=600, doc="the program is killed when it takes longer")
    pause_seconds: float = bounded(10.0, ge=0, doc="between two runs of it")
    per_hour: int = bounded(20, ge=1, le=1000, doc="runs in an hour at most; the rest is only logged")
    look_seconds: float = bounded(
        10.0, ge=0, doc="from the landing of a frame to its first look, for 95 % of them; 0 is not looked at"
    )


@dataclass(frozen=True)
class Override:
    """A parameter override for all data, for one recipe, or for those that match."""

    parameters: Mapping[str, Any] = field(default_factory=dict, metadata={"doc": '{"step:name" = value}'})
    recipe: str = bounded("", doc="only in this recipe; empty is all")
    match: Mapping[str, Any] = field(
        default_factory=dict, metadata={"doc": "{descriptor = value}, all must agree"}
    )


@dataclass(frozen=True)
class ConditionsRequest:
    """What a programme asks of the night, where its headers do not say; percentiles, or numbers."""

    program: str  # GN-2015B-Q-31; a * at the end stands for anything
    iq: int | None = bounded(None, ge=1, le=100, doc="percentile of image quality, as 70")
    cc: int | None = bounded(None, ge=1, le=100, doc="percentile of cloud cover")
    bg: int | None = bounded(None, ge=1, le=100, doc="percentile of background")
    wv: int | None = bounded(None, ge=1, le=100, doc="percentile of water vapour")
    iq_arcsec: float | None = bounded(None, gt=0, doc="FWHM on the source, arcsec, instead of iq")
    cloud_mag: float | None = bounded(None, gt=0, doc="extinction by cloud, magnitudes, instead of cc")


# What the configuration calls them -> kinds of calibrations.
KINDS: Mapping[str, frozenset[CalKind]] = {
    "dark": frozenset({CalKind.DARK}),
    "flat": frozenset({CalKind.FLAT}),
    "bpm": frozenset({CalKind.STATIC_BPM, CalKind.MADE_BPM}),
    "zero_point": frozenset({CalKind.ZERO_POINT}),
}


@dataclass(frozen=True)
class Change:
    """A table [[breakpoint]]: from `at` on calibrations of these kinds are other than before."""

    at: datetime  # UT; a date is its first moment
    kinds: tuple[str, ...]  # of KINDS
    reason: str

    def breakpoint(self) -> Breakpoint:
        return Breakpoint(self.at, frozenset().union(*(KINDS[kind] for kind in self.kinds)), self.reason)


@dataclass(frozen=True)
class DepthGoal:
    """What is deep enough for a programme: a depth, or a signal-to-noise ratio."""

    program: str  # GN-2015B-Q-31; a * at the end stands for anything
    target: str = bounded("", doc="only this object, as headers name it")
    filter: str = bounded("", doc="only this filter, as K(prime)")
    depth: float | None = bounded(None, ge=0, le=40, doc="magnitude of a point source with 5 sigma")
    snr: float | None = bounded(None, gt=0, doc="signal-to-noise ratio, instead of depth ...")
    magnitude: float | None = bounded(None, ge=-5, le=40, doc="... of a point source; else of the target")


@dataclass(frozen=True)
class Config:
    """Everything an operator may choose."""

    watch: Watch = Watch()
    products: Products = Products()
    state: State = State()
    engine: Engine = Engine()
    reduction: Reduction = Reduction()
    planning: Policy = DEFAULT_POLICY
    looks: Looks = Looks()
    retention: Retention = Retention()
    disk: Disk = Disk()
    log: Log = Log()
    web: Web = Web()
    alert: Alerting = Alerting()
    trigger: tuple[TriggerRule, ...] = DEFAULT_RULES
    override: tuple[Override, ...] = ()
    request: tuple[ConditionsRequest, ...] = ()
    goal: tuple[DepthGoal, ...] = ()
    breakpoint: tuple[Change, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict, repr=False, compare=False)
    path: str = field(default="", compare=False)  # of the file; empty when there is none
    cache: str = field(default="", compare=False)  # of the service, for a command beside it
    base: str = field(default="", compare=False)  # what folders are relative to; empty: where we are

    def _absolute(self, folder: str) -> Path:
        return Path(os.path.abspath(os.path.join(self.base, expanded(folder))))

    @property
    def drop_folders(self) -> tuple[Path, ...]:
        return tuple(self._absolute(folder) for folder in self.watch.folders)

    @property
    def product_folder(self) -> Path:
        return self._absolute(self.products.folder)

    @property
    def state_folder(self) -> Path:
        return self._absolute(self.state.folder or _first_of("STATE_DIRECTORY") or "state")

    @property
    def cache_folder(self) -> Path:
        """What can be made again: the scratch maps of large groups, and the compiled loops."""
        given = _first_of("CACHE_DIRECTORY") or self.cache
        return self._absolute(given) / "frames" if given else self.state_folder / "cache"

    @property
    def database(self) -> Path:
        return self.state_folder / "nirid.db"

    @property
    def policy(self) -> Policy:
        """What planning goes by: the options of [planning], and the breakpoints."""
        found = sorted((change.breakpoint() for change in self.breakpoint), key=lambda b: b.at)
        return replace(self.planning, breakpoints=tuple(found))

    def parameters(self, recipe: str, descriptors: Mapping[str, Any]) -> dict[str, Any]:
        """The overrides for one run; when two tables set the same parameter, the later one counts."""
        chosen: dict[str, Any] = {}
        for override in self.override:
            if override.recipe in ("", recipe) and all(
                _agrees(wanted, descriptors.get(name)) for name, wanted in override.match.items()
            ):
                chosen |= those_of(recipe, override)
        return chosen


def _first_of(variable: str) -> str:
    """The first of the folders that systemd names, with colons between, one for each word of the unit."""
    return next(filter(None, os.environ.get(variable, "").split(":")), "")


def those_of(recipe: str, override: Override) -> dict[str, Any]:
    """An override for all recipes gives the parameters that this recipe has; one for this recipe
    gives all."""
    from pipeline.primitive import COMMON
    from pipeline.recipes import RECIPES

    if override.recipe:
        return dict(override.parameters)
    steps = {s.name: type_hints(s.primitive.params).keys() | COMMON.keys() for s in RECIPES[recipe].steps}
    mine = {}
    for key, value in override.parameters.items():
        step, _, name = key.rpartition(":")
        if name in steps.get(step, ()) or (not step and any(name in names for names in steps.values())):
            mine[key] = value
    return mine


def _agrees(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, int | float) and isinstance(value, int | float):
        return abs(wanted - value) <= 1e-3 * max(abs(wanted), 1e-9)  # 20 finds 20.002
    return bool(wanted == value)
