"""What is wrong in a configuration that each option by itself does not show."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from daemon.config.options import KINDS, Config, Override, those_of
from daemon.model.address import is_loopback
from pipeline import niri
from pipeline.errors import ConfigError, OverrideError
from pipeline.headers.descriptors import Descriptors
from pipeline.params import suggest, type_hints


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
    """Raises ConfigError when others could talk to the Dask scheduler: it runs whatever it is sent."""
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


def check_web(config: Config) -> None:
    """Raises ConfigError for an address that is none, a name that no Host can have, or no address at all."""
    web, where = config.web, f"{config.path or 'command line'}: web."
    problems = [] if web.hosts else [f"{where}hosts is empty: at least one address is needed"]
    for address in web.hosts:
        try:
            ip_address(address)
        except ValueError:
            problems.append(f'{where}hosts = {address!r}: must be an address, as "127.0.0.1" or "::1"')
    for name in web.names:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", name):
            problems.append(f'{where}names = {name!r}: must be a name without a port, as "niri.example"')
    if problems:
        raise ConfigError("\n".join(problems))


def check_triggers(config: Config) -> None:
    """Raises ConfigError when a rule names a recipe, descriptor, tag or rule that does not exist."""
    from pipeline.headers.tags import RULES as TAG_RULES
    from pipeline.recipes import RECIPES

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
        mine = those_of(name, override)
        for key in mine:
            untaken.pop(key, None)
        try:
            RECIPES[name].bind(mine, preset)
        except OverrideError as error:
            problems += str(error).splitlines()
    for key, value in untaken.items():  # no recipe takes it: report the error of the one with most steps
        fullest = max(RECIPES.values(), key=lambda recipe: len(recipe.steps))
        try:
            fullest.bind({key: value}, preset)
        except OverrideError as error:
            problems += str(error).splitlines()
    return problems


# Percentiles that Gemini has or had as bins (FitsStorage's words of headers, lucuma-core's CloudExtinction).
BINS = {
    "iq": (20, 50, 70, 80, 85, 100),
    "cc": (20, 50, 70, 75, 80, 90, 95, 100),
    "bg": (20, 50, 80, 100),
    "wv": (20, 50, 80, 100),
}


def check_requests(config: Config) -> None:
    """Raises ConfigError for a request that names no bin of Gemini's, or one condition in two ways."""
    problems = []
    for number, request in enumerate(config.request, 1):
        where = f"{config.path}: request {number}: "
        if not request.program.strip():
            problems.append(f'{where}program is empty: must be as "GN-2016A-Q-5", or "*" for all')
        for name, bins in BINS.items():
            value = getattr(request, name)
            if value is not None and value not in bins:
                near = min(bins, key=lambda one: abs(one - value))
                known = ", ".join(map(str, bins))
                problems.append(f"{where}{name} = {value}: no such bin; did you mean {near}? ({known})")
        for old, new in (("iq", "iq_arcsec"), ("cc", "cloud_mag")):
            if getattr(request, old) is not None and getattr(request, new) is not None:
                problems.append(f"{where}{old} and {new} are one condition: say one of them")
    if problems:
        raise ConfigError("\n".join(problems))


def check_goals(config: Config) -> None:
    """Raises ConfigError for a goal that says nothing, two things, or names a filter that NIRI has not."""
    filters = {filter.pretty for filter in niri.FILTERS.values()}
    problems = []
    for number, goal in enumerate(config.goal, 1):
        where = f"{config.path}: goal {number}: "
        if not goal.program.strip():
            problems.append(f'{where}program is empty: must be as "GN-2016A-Q-5", or "*" for all')
        if goal.filter and goal.filter not in filters:
            problems.append(f"{where}no filter {goal.filter}{suggest(goal.filter, filters)}")
        if (goal.depth is None) == (goal.snr is None):
            both = "say one of them" if goal.snr is not None else "one of them is needed"
            problems.append(f"{where}depth or snr: {both}")
        elif goal.magnitude is not None and goal.snr is None:
            problems.append(f"{where}magnitude belongs to snr, not to depth")
    if problems:
        raise ConfigError("\n".join(problems))


def check_breakpoints(config: Config) -> None:
    """Raises ConfigError for a breakpoint of no kind, of one that there is not, or without a reason."""
    problems = []
    for number, change in enumerate(config.breakpoint, 1):
        where = f"{config.path}: breakpoint {number}: "
        if not change.kinds:
            problems.append(f"{where}kinds is empty: some of {', '.join(KINDS)}")
        for kind in change.kinds:
            if kind not in KINDS:
                problems.append(f"{where}no kind {kind}{suggest(kind, KINDS)}; there are {', '.join(KINDS)}")
        if not change.reason.strip():
            problems.append(f'{where}reason is empty: must be in words, as "GCAL exposures raised"')
    if problems:
        raise ConfigError("\n".join(problems))
