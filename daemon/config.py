"""The configuration: one TOML file -> frozen dataclasses, every mistake at once, the origin of each value.

Defaults are here; the program runs without a file, and `config/nirid.toml` is the annotated copy for
operators (a test keeps the two equal). Relative folders are relative to the working directory; those of the
service of this machine, asked from elsewhere, to its own (`daemon.service`).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from daemon import service
from daemon.triggers import DEFAULT_POLICY, DEFAULT_RULES, Policy, TriggerRule
from pipeline.descriptors import Descriptors
from pipeline.errors import ConfigError, OverrideError
from pipeline.params import bounded, check_bounds, coerce, suggest, type_hints
from pipeline.places import expanded

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
    """What there is to see before a sequence is complete, in PRODUCTS/NIGHT/quicklook."""

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
    """When work pauses for want of room; it goes on at 1.5 times as much."""

    low_water_mb: int = bounded(
        2000, ge=0, doc="with less free for products or state (or than 3 of the biggest jobs) no job starts"
    )
    low_water_inodes: int = bounded(5000, ge=0, doc="the same, in number of files")


@dataclass(frozen=True)
class Override:
    """A parameter override for all data, for one recipe, or for those that match."""

    parameters: Mapping[str, Any] = field(default_factory=dict, metadata={"doc": '{"step:name" = value}'})
    recipe: str = bounded("", doc="only in this recipe; empty is all")
    match: Mapping[str, Any] = field(
        default_factory=dict, metadata={"doc": "{descriptor = value}, all must agree"}
    )


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
    trigger: tuple[TriggerRule, ...] = DEFAULT_RULES
    override: tuple[Override, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict, repr=False, compare=False)
    path: str = field(default="", compare=False)  # of the file; empty when there is none
    cache: str = field(default="", compare=False)  # of the service, for a command beside it

    @property
    def drop_folders(self) -> tuple[Path, ...]:
        return tuple(_absolute(folder) for folder in self.watch.folders)

    @property
    def product_folder(self) -> Path:
        return _absolute(self.products.folder)

    @property
    def state_folder(self) -> Path:
        return _absolute(self.state.folder or os.environ.get("STATE_DIRECTORY") or "state")

    @property
    def cache_folder(self) -> Path:
        """What can be made again: the scratch maps of large groups, and the compiled loops."""
        given = os.environ.get("CACHE_DIRECTORY", "").split(":")[0] or self.cache
        return _absolute(given) / "frames" if given else self.state_folder / "cache"

    @property
    def database(self) -> Path:
        return self.state_folder / "nirid.db"

    def parameters(self, recipe: str, descriptors: Mapping[str, Any]) -> dict[str, Any]:
        """The overrides for one run; of two tables that say the same, the later one counts."""
        chosen: dict[str, Any] = {}
        for override in self.override:
            if override.recipe in ("", recipe) and all(
                _agrees(wanted, descriptors.get(name)) for name, wanted in override.match.items()
            ):
                chosen |= _those_of(recipe, override)
        return chosen


NOT_OPTIONS = ("origins", "path", "cache")


def find_file(given: str | None = None, *, of_service: bool = True) -> Path | None:
    """The configuration file: --config, else $NIRID_CONFIG, else the service's configuration directory as its
    manager says, else /etc/nirid/nirid.toml when it is there.

    of_service : False for what is not the service's, as a state folder of one's own
    """
    if chosen := given or os.environ.get("NIRID_CONFIG"):
        return expanded(chosen)
    folder = os.environ.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
    file = Path(folder) / "nirid.toml" if folder else None
    if file and file.exists():
        return file
    return service.file() if of_service else None


def load(path: Path | None = None, command_line: Mapping[str, Any] | None = None) -> Config:
    """Read and check everything. Raises ConfigError with one line for every mistake.

    command_line : {"watch.folders": ["drop"], ...}; None means not given
    """
    text = _text(path) if path else ""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    given = {key: value for key, value in (command_line or {}).items() if value is not None}
    for key, value in given.items():
        section, _, name = key.partition(".")
        tables[section] = {**tables.get(section, {}), name: value}
    problems: list[_Problem] = []
    merged = {**tables, "trigger": _with_shipped_rules(tables.get("trigger", []))}
    config: Config = _table(Config, merged, "", problems)
    if problems:
        lines = (f"{_line_of(text, p.where)}{p.where}{p.what}" for p in problems)
        raise ConfigError("\n".join(f"{path or 'command line'}{line}" for line in lines))
    config = dataclasses.replace(config, origins=_origins(tables, given), path=str(path or ""))
    if service.owns(path):
        config = _of_the_service(config, given)
    check_folders(config)
    check_engine(config)
    if config.trigger != DEFAULT_RULES:  # which a test has checked: most commands need no recipes otherwise
        check_triggers(config)
    if config.override:
        check_overrides(config)
    return config


def _of_the_service(config: Config, given: Mapping[str, Any]) -> Config:
    """With the folders that the service has, as its unit says, wherever the command was typed."""
    base, origins = service.place(service.FOLDERS), dict(config.origins)
    if "watch.folders" not in given:
        folders = tuple(str(base / expanded(folder)) for folder in config.watch.folders)
        config = dataclasses.replace(config, watch=dataclasses.replace(config.watch, folders=folders))
    if "products.folder" not in given:
        products = str(base / expanded(config.products.folder))
        config = dataclasses.replace(config, products=dataclasses.replace(config.products, folder=products))
    if "state.folder" not in given:
        state = str(base / expanded(config.state.folder)) if config.state.folder else ""
        origins["state.folder"] = "file" if state else "service"
        own = State(state or str(service.place(service.STATE)))
        config = dataclasses.replace(config, state=own, cache=str(service.place(service.CACHE)))
    return dataclasses.replace(config, origins=origins)


def check_folders(config: Config) -> None:
    """Raises ConfigError when drop, products and state folders contain one another, or one is a file."""
    ours = [("products folder", config.product_folder), ("state folder", config.state_folder)]
    for name, folder in ours:  # not the drop folders: a network folder may hang
        if file := next((p for p in (folder, *folder.parents) if os.path.isfile(p)), None):
            where = "" if file == folder else f": {file}"
            raise ConfigError(f"{name} {folder}{where} is a file, not a folder")
    places = [*((f"drop folder {f}", f) for f in config.drop_folders), *ours]
    real = [(name, folder.resolve()) for name, folder in places]
    for i, (name, folder) in enumerate(real):
        for other_name, other in real[i + 1 :]:
            if folder == other or folder in other.parents or other in folder.parents:
                raise ConfigError(
                    f"{name} and {other_name} contain one another ({folder}, {other}): keep them apart"
                )


def check_engine(config: Config) -> None:
    """Raises ConfigError when others could talk to the Dask scheduler: it believes what it is sent."""
    engine = config.engine
    if engine.kind != "dask":
        return
    problem = ""
    try:
        parts = urlsplit(engine.scheduler)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        scheme, host, port = "", "", None
    missing = [f"tls_{name}" for name in ("ca", "cert", "key") if not getattr(engine, f"tls_{name}")]
    if scheme not in ("tcp", "tls") or not host or not port:
        problem = 'must be "tcp://127.0.0.1:8786", or "tls://HOST:PORT"'
    elif scheme == "tcp" and not is_loopback(host):
        problem = "tcp:// is for this machine only; between machines tls:// is needed"
    elif scheme == "tls" and missing:
        problem = f"tls:// needs {', '.join(missing)} too"
    if problem:
        raise ConfigError(
            f"{config.path or 'command line'}: engine.scheduler = {engine.scheduler!r}: {problem}"
        )


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_triggers(config: Config) -> None:
    """Raises ConfigError when a rule names a recipe, descriptor, tag or rule that does not exist."""
    from pipeline.recipes import RECIPES
    from pipeline.tags import RULES as TAG_RULES

    descriptors = set(type_hints(Descriptors))
    vocabulary = {tag for rule in TAG_RULES for tag in rule.tags.split()}
    titles = [rule.title for rule in config.trigger]
    problems = [f"two triggers are called {title}" for title in set(titles) if titles.count(title) > 1]
    for rule in config.trigger:
        named = {"recipe": ([rule.recipe], RECIPES), "descriptor": (list(rule.group_by), descriptors)}
        tags = [tag for ingredient in rule.ingredients for tag in ingredient.tags]
        named["tag"] = ([*tags, *rule.exclude], vocabulary)
        named["descriptor"][0].extend(n for ingredient in rule.ingredients for n in ingredient.limits)
        if rule.join:
            named["descriptor"][0].extend(rule.join.agree)
            named["trigger"] = ([rule.join.rule], titles)
        for what, (names, known) in named.items():
            problems += [
                f"trigger {rule.title}: no {what} {n}{suggest(n, known)}" for n in names if n not in known
            ]
        if not rule.ingredients:
            problems.append(f"trigger {rule.title}: it has no ingredients")
    if problems:
        raise ConfigError("\n".join(f"{config.path}: {line}" for line in problems))


def check_overrides(config: Config) -> None:
    """Bind every recipe with every override: a misspelt parameter stops the start, not the night."""
    from pipeline.recipes import RECIPES

    problems = []
    known = set(type_hints(Descriptors))
    for i, override in enumerate(config.override, 1):
        where = f"{config.path}: override {i}: "
        if override.recipe and override.recipe not in RECIPES:
            problems.append(f"{where}no recipe {override.recipe}{suggest(override.recipe, RECIPES)}")
            continue
        problems += [
            f"{where}match: no descriptor {n}{suggest(n, known)}" for n in override.match if n not in known
        ]
        problems += [where + line for line in _binding_problems(override, config.reduction.preset)]
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


def _binding_problems(override: Override, preset: str) -> list[str]:
    from pipeline.recipes import RECIPES

    names = [override.recipe] if override.recipe else list(RECIPES)
    untaken = dict(override.parameters) if not override.recipe else {}
    problems = []
    for name in names:
        mine = _those_of(name, override)
        for key in mine:
            untaken.pop(key, None)
        try:
            RECIPES[name].bind(mine, preset)
        except OverrideError as error:
            problems += str(error).splitlines()
    for key, value in untaken.items():  # no recipe takes it: let the one with most steps say why
        fullest = max(RECIPES.values(), key=lambda recipe: len(recipe.steps))
        try:
            fullest.bind({key: value}, preset)
        except OverrideError as error:
            problems += str(error).splitlines()
    return problems


def _those_of(recipe: str, override: Override) -> dict[str, Any]:
    """Of an override for all recipes, the parameters that this one has; of one for this recipe, all."""
    from pipeline.recipes import RECIPES

    if override.recipe:
        return dict(override.parameters)
    steps = {s.name: type_hints(s.primitive.params).keys() | COMMON for s in RECIPES[recipe].steps}
    mine = {}
    for key, value in override.parameters.items():
        step, _, name = key.rpartition(":")
        if name in steps.get(step, ()) or (not step and any(name in names for names in steps.values())):
            mine[key] = value
    return mine


COMMON = {"skip_primitive", "write_outputs"}


def options(config: Config) -> Iterator[tuple[str, Any, Origin, str]]:
    """Every option as (name, value, where it came from, one line on it), for `check-config`."""
    for section in _fields(Config):
        value = getattr(config, section.name)
        if not dataclasses.is_dataclass(value):
            yield section.name, _plain(value), config.origins.get(section.name, "default"), ""
            continue
        for option in dataclasses.fields(value):
            name = f"{section.name}.{option.name}"
            doc = option.metadata.get("doc", "")
            yield name, _plain(getattr(value, option.name)), config.origins.get(name, "default"), doc


RETIRED = frozenset({"engine.cache_mb"})  # once options: still accepted, and do nothing

# -- TOML tables to dataclasses ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Problem:
    where: str  # "watch.setle_seconds", "trigger[2].recipe"
    what: str


def _fields(cls: Any) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if f.name not in NOT_OPTIONS]


def _table(cls: Any, values: Any, where: str, problems: list[_Problem]) -> Any:
    """An instance of a dataclass from a TOML table; None when something was wrong in it."""
    if not isinstance(values, Mapping):
        problems.append(_Problem(where, ": must be a table"))
        return None
    hints, known = type_hints(cls), {f.name: f for f in _fields(cls)}
    before, chosen = len(problems), {}
    for name, raw in values.items():
        place = f"{where}.{name}" if where else name
        if place in RETIRED:
            continue
        if name not in known:
            problems.append(_Problem(place, f": no such option{suggest(name, known)}"))
            continue
        try:
            chosen[name] = _value(hints[name], raw, place, problems)
            check_bounds(known[name], chosen[name])
        except ValueError as error:
            problems.append(_Problem(place, f" = {raw!r}: {error}"))
    for name, option in known.items():
        if name not in chosen and option.default is option.default_factory is dataclasses.MISSING:
            problems.append(_Problem(where, f": {name} is missing"))
    return cls(**chosen) if len(problems) == before else None


def _with_shipped_rules(tables: Any) -> Any:
    """The [[trigger]] tables; one with the name of a shipped rule keeps of it what it does not say."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        return tables
    shipped = {rule.title: _plain(rule) for rule in DEFAULT_RULES}
    given = {table.get("name") or table.get("recipe"): table for table in tables}
    merged = [{**shipped.get(table.get("name") or table.get("recipe"), {}), **table} for table in tables]
    return merged + [rule for title, rule in shipped.items() if title not in given]


def _value(kind: Any, raw: Any, where: str, problems: list[_Problem]) -> Any:
    inner = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _table(kind, raw, where, problems)
    if type(None) in inner and any(dataclasses.is_dataclass(k) for k in inner):
        return raw and _table(next(k for k in inner if dataclasses.is_dataclass(k)), raw, where, problems)
    if origin is tuple and dataclasses.is_dataclass(inner[0]):
        if not isinstance(raw, list):
            raise ValueError("must be a list of tables")
        return tuple(_table(inner[0], item, f"{where}[{i}]", problems) for i, item in enumerate(raw, 1))
    if origin is tuple and float in inner:
        if not (isinstance(raw, list) and len(raw) == len(inner)):
            raise ValueError(f"must be a list of {len(inner)} numbers")
        return tuple(coerce(float, item) for item in raw)
    if origin is frozenset:
        return frozenset(coerce(tuple[str, ...], raw))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(raw, Mapping):
            raise ValueError("must be a table")
        if inner[1] is Any:
            return dict(raw)
        return {name: _value(inner[1], item, f"{where}.{name}", problems) for name, item in raw.items()}
    return coerce(kind, raw)


def _line_of(text: str, where: str) -> str:
    """`:7: ` when the line of a key can be found in the file, else `: `."""
    *sections, key = re.sub(r"\[\d+\]", "", where).split(".") or [""]
    index = int(found[1]) if (found := re.search(r"\[(\d+)\]", where)) else 1
    inside, count = not sections, 0
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]\s]+)\s*\]", line)
        if header:
            count += header[1] == (sections or [key])[0]
            inside = header[1] == (sections or [key])[0] and count == index
        if inside and re.match(rf"\s*(\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*[=\]]", line):
            return f":{number}: "
    return ": "


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _origins(tables: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Origin]:
    found: dict[str, Origin] = {}
    for section, values in tables.items():
        names = [f"{section}.{name}" for name in values] if isinstance(values, Mapping) else [section]
        found |= dict.fromkeys(names, "file")
    return found | dict.fromkeys(given, "command line")


def _absolute(folder: str) -> Path:
    return Path(os.path.abspath(expanded(folder)))


def _agrees(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, int | float) and isinstance(value, int | float):
        return abs(wanted - value) <= 1e-3 * max(abs(wanted), 1e-9)  # 20 finds 20.002
    return bool(wanted == value)


def _plain(value: Any) -> Any:
    """As JSON can say it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
