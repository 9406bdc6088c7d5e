"""The configuration: one TOML file -> frozen dataclasses, every mistake at once, the origin of each value.

Defaults are here; the program runs without a file, and `config/nirid.toml` is the annotated copy for
operators (a test keeps the two equal). Relative folders are relative to the working directory; those of the
service of this machine, asked from elsewhere, to its own (`daemon.config.service`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from daemon.config import service
from daemon.config.check import (
    check_breakpoints,
    check_engine,
    check_folders,
    check_goals,
    check_overrides,
    check_requests,
    check_triggers,
    check_web,
)
from daemon.config.options import Config, Origin, State
from daemon.config.service import CACHE, FOLDERS, STATE
from daemon.model.rules import DEFAULT_RULES
from pipeline.errors import ConfigError
from pipeline.files.places import expanded
from pipeline.params import check_bounds, coerce, suggest, type_hints

NOT_OPTIONS = ("origins", "path", "cache", "base", "breakpoints")


def find_file(given: str | None = None, *, of_service: bool = True) -> Path | None:
    """The configuration file: --config, else $NIRID_CONFIG, else the service's configuration directory as its
    manager says, else /etc/nirid/nirid.toml when it is there.

    of_service : False for what is not the service's, as a state folder of one's own
    """
    if chosen := given or os.environ.get("NIRID_CONFIG"):
        return expanded(chosen)
    for folder in filter(None, os.environ.get("CONFIGURATION_DIRECTORY", "").split(":")):
        if (file := Path(folder) / "nirid.toml").exists():
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
    # the working directory was deleted: only absolute paths work
    with contextlib.suppress(FileNotFoundError):
        config = dataclasses.replace(config, base=os.getcwd())
    config = dataclasses.replace(config, origins=_origins(tables, given), path=str(path or ""))
    if service.owns(path):
        config = _of_the_service(config, given)
    check_folders(config)
    check_engine(config)
    check_web(config)
    # the shipped rules are checked by a test, so most commands need not load the recipes
    if config.trigger != DEFAULT_RULES:
        check_triggers(config)
    if config.override:
        check_overrides(config)
    check_requests(config)
    check_goals(config)
    check_breakpoints(config)
    return config


def _of_the_service(config: Config, given: Mapping[str, Any]) -> Config:
    """With the folders that the service has, as its unit says, wherever the command was typed."""
    base, origins = service.place(FOLDERS), dict(config.origins)
    if "watch.folders" not in given:
        folders = tuple(str(base / expanded(folder)) for folder in config.watch.folders)
        config = dataclasses.replace(config, watch=dataclasses.replace(config.watch, folders=folders))
    if "products.folder" not in given:
        products = str(base / expanded(config.products.folder))
        config = dataclasses.replace(config, products=dataclasses.replace(config.products, folder=products))
    if "state.folder" not in given:
        state = str(base / expanded(config.state.folder)) if config.state.folder else ""
        origins["state.folder"] = "file" if state else "service"
        own = State(state or str(service.place(STATE)))
        config = dataclasses.replace(config, state=own, cache=str(service.place(CACHE)))
    return dataclasses.replace(config, origins=origins)


def options(config: Config) -> Iterator[tuple[str, Any, Origin, str]]:
    """Every option as (name, value, where it came from, one line on it), for `check-config`."""
    for section in _fields(Config):
        value = getattr(config, section.name)
        if not dataclasses.is_dataclass(value):
            yield section.name, _plain(value), config.origins.get(section.name, "default"), ""
            continue
        for option in _fields(value):
            name = f"{section.name}.{option.name}"
            doc = option.metadata.get("doc", "")
            yield name, _plain(getattr(value, option.name)), config.origins.get(name, "default"), doc


RETIRED = frozenset({"engine.cache_mb"})  # retired options: still accepted, without effect

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
        if name not in values and option.default is option.default_factory is dataclasses.MISSING:
            problems.append(_Problem(where, f": {name} is missing"))
    return cls(**chosen) if len(problems) == before else None


def _with_shipped_rules(tables: Any) -> Any:
    """The [[trigger]] tables; one with the name of a shipped rule changes only what it names."""
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
    """`:7: ` when the line of a key can be found in the file, else `: `. where : as `overrides[2].recipe`

    TOML's reader gives no lines, so the file is looked through once more, for the right table and the key.
    """
    *sections, key = re.sub(r"\[\d+\]", "", where).split(".")
    table = sections[0] if sections else key
    index = int(found[1]) if (found := re.search(r"\[(\d+)\]", where)) else 1
    key_or_header = re.compile(rf"\s*(\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*[=\]]")
    inside, seen = not sections, 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]\s]+)\s*\]", line):
            seen += header[1] == table
            inside = header[1] == table and seen == index
        if inside and key_or_header.match(line):
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


def _plain(value: Any) -> Any:
    """As JSON can say it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
