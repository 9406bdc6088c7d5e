"""nirid showpars, showrecipes: what will be done to a file, and what a step can be told."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from daemon.cli import Settings
from daemon.cli.output import console, json_option, print_json, table
from daemon.cli.words import File, names_of

if TYPE_CHECKING:
    from pipeline.primitive import Recipe, Step
    from pipeline.toolkit.dataset import Dataset

LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _steps() -> Iterable[str]:
    from pipeline import recipes
    from pipeline.primitive import PRIMITIVES

    assert recipes
    return PRIMITIVES


@click.command(short_help="Show the parameters of a step for a file.")
@click.argument("file", type=File())
@click.argument("step", shell_complete=names_of(_steps))
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that are for debugging.")
@click.option("-d", "--doc", "whole", is_flag=True, help="Also what the step does, in full.")
@json_option
@click.pass_obj
def showpars(settings: Settings, file: str, step: str, everything: bool, whole: bool, as_json: bool) -> None:
    """Show what a step can be told when it is run on a file, and what it is told now.

    \b
    nirid showpars N20160102S0270.fits skyCorrect
    nirid --config nirid.toml showpars N20160102S0270.fits stackFrames

    The value is that of the preset nirid, beside it that of the preset dragons where it differs. Where it
    comes from: the default, an override of the daemon's configuration that matches this file, or the
    recipe, which then cannot be overruled. It is changed with -p step:name=value.
    """
    from pipeline.errors import NiridError
    from pipeline.params import suggest
    from pipeline.primitive import COMMON, PRIMITIVES
    from pipeline.toolkit.dataset import Dataset

    ad = Dataset(file)
    recipe, found = _find(ad, step)
    if found is None:
        raise NiridError(
            f"no step {step}{suggest(step, PRIMITIVES)}; the steps of {recipe.name} are {_names(recipe)}"
        )
    rows = [
        row
        for row in _rows(settings, ad, recipe, found)
        if everything or not row["name"].startswith("debug_")
    ]
    if as_json:
        print_json({"file": file, "recipe": recipe.name, "step": found.name, "parameters": rows})
        return
    out = console()
    out.print(f"{found.name} in {recipe.name}, for {ad.filename}: {' '.join(sorted(ad.tags))}", markup=False)
    out.print(found.primitive.doc.partition("\n")[0], markup=False, style="dim")
    out.print()
    columns = ("parameter", "value", "dragons", "from", "allowed", "what it is")
    shown = [
        (
            r["name"],
            r["value"],
            "" if r["dragons"] == r["default"] else r["dragons"],
            r["from"],
            r["allowed"],
            r["doc"],
        )
        for r in rows
    ]
    out.print(table(columns, shown) if shown else "it has no parameters of its own")
    out.print(f"\nevery step also takes {' and '.join(COMMON)}, True or False", markup=False)
    if whole:
        out.print(f"\n{inspect.cleandoc(found.primitive.doc)}", markup=False, soft_wrap=True)


def _find(ad: Dataset, name: str) -> tuple[Recipe, Step | None]:
    """The recipe for this file if it has the step, else the first that has; the step there."""
    from pipeline.errors import NiridError
    from pipeline.recipes import RECIPES, default_recipe

    own = default_recipe(ad.tags)
    if own is None:
        raise NiridError(f"no recipe for {ad.filename}, whose tags are {' '.join(sorted(ad.tags))}")
    for recipe in (own, *RECIPES.values()):
        for step in recipe.steps:
            if step.name == name:
                return recipe, step
    return own, None


def _rows(settings: Settings, ad: Dataset, recipe: Recipe, step: Step) -> list[dict[str, Any]]:
    from pipeline.params import allowed, type_hints

    cls = step.primitive.params
    config = settings.load()
    overrides = config.parameters(recipe.name, vars(ad.facts))
    bound = {s.step.name: s.params for s in recipe.bind(overrides, config.reduction.preset).steps}
    rows = []
    for field in dataclasses.fields(cls):
        limits = [
            f"{sign} {field.metadata[key]:g}"
            for key, sign in LIMITS.items()
            if field.metadata.get(key) is not None
        ]
        origin = "default"
        if f"{step.name}:{field.name}" in overrides or field.name in overrides:
            origin = f"override in {config.path}"
        elif config.reduction.preset == "dragons" and "dragons" in field.metadata:
            origin = "preset dragons"
        if field.name in step.fixed:
            origin = f"recipe {recipe.name}"
        rows.append(
            {
                "name": field.name,
                "value": getattr(bound[step.name], field.name),
                "default": field.default,
                "dragons": field.metadata.get("dragons", field.default),
                "from": origin,
                "allowed": " ".join([allowed(type_hints(cls)[field.name]), ", ".join(limits)]).strip(),
                "doc": field.metadata.get("doc", ""),
            }
        )
    return rows


def _names(recipe: Recipe) -> str:
    return ", ".join(step.name for step in recipe.steps)


@click.command(short_help="Show the recipe for a file, step by step.")
@click.argument("file", type=File())
@click.option(
    "-r", "--recipe", "name", default="_default", metavar="RECIPE", help="Another than the default one."
)
@click.option("-m", "--mode", type=click.Choice(["sq", "ql", "qa"]), default="sq", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Only the names of all recipes.")
@json_option
def showrecipes(file: str, name: str, mode: str, everything: bool, as_json: bool) -> None:
    """Show which recipe runs on a file, its steps, the calibrations it takes, and the other recipes.

    \b
    nirid showrecipes N20160102S0423.fits
    nirid showrecipes N20160102S0373.fits -r makeProcessedBPM
    """
    from pipeline.recipes import RECIPES
    from pipeline.reduce import find_recipe
    from pipeline.toolkit.dataset import Dataset

    if everything:
        names = [one for one, recipe in RECIPES.items() if mode in recipe.modes]
        print_json(names) if as_json else click.echo("\n".join(names))
        return
    ad = Dataset(file)
    recipe = find_recipe(name, ad, mode)
    answer: dict[str, Any] = {
        "file": file,
        "tags": sorted(ad.tags),
        "recipe": recipe.name,
        "version": recipe.version,
        "suffix": recipe.suffix,
        "needs": sorted(recipe.needs),
        "prefers": sorted(recipe.prefers),
        "wants": sorted(recipe.wants),
        "steps": [{"name": step.name, "fixed": dict(step.fixed)} for step in recipe.steps],
        "recipes": list(RECIPES),
    }
    if as_json:
        print_json(answer)
        return
    out = console()
    out.print(f"file      {ad.path}\ntags      {' '.join(sorted(ad.tags))}", markup=False)
    out.print(
        f"recipe    {recipe.name}, version {recipe.version}; makes NAME{recipe.suffix}.fits", markup=False
    )
    for word in ("needs", "prefers", "wants"):
        if kinds := answer[word]:
            out.print(f"{word:<9} {', '.join(kinds)}", markup=False)
    out.print(f"others    {', '.join(other for other in RECIPES if other != recipe.name)}\n", markup=False)
    rows = []
    for step in recipe.steps:
        fixed = ", ".join(f"{key}={value}" for key, value in step.fixed.items())
        rows.append((step.name, fixed, step.primitive.doc.partition("\n")[0]))
    out.print(table(("step", "fixed", "what it does"), rows))
