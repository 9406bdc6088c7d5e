"""The published form of every JSON answer of the page: tests/schemas/*.json, in JSON Schema of 2020-12."""

import json
from functools import cache
from pathlib import Path

import jsonschema
from referencing import Registry, Resource

FOLDER = Path(__file__).parent / "schemas"


@cache
def named():
    """{name: schema}, `parts` among them."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}


@cache
def checker(name):
    known = Registry().with_resources((s["$id"], Resource.from_contents(s)) for s in named().values())
    return jsonschema.Draft202012Validator(named()[name], registry=known)


def wrong(name, answer):
    """What is not as the schema `name` has it, in words; [] when all is."""
    found = []
    for error in checker(name).iter_errors(answer):
        error = jsonschema.exceptions.best_match([error])
        found.append(f"{error.json_path}: {error.message[:300]}")
    return found
