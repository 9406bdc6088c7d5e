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
    return [words for error in checker(name).iter_errors(answer) for words in _words(error)]


def _words(error):
    """Of several forms that something may have, what is wrong with the one that it is nearest to."""
    if not error.context:
        return [f"{error.json_path}: {error.message[:300]}"]
    forms = {}
    for each in error.context:
        forms.setdefault(each.schema_path[0], []).append(each)
    nearest = min(forms.values(), key=lambda found: (len(found), -max(len(e.path) for e in found)))
    if len({len(found) for found in forms.values()}) == 1:
        nearest = max(forms.values(), key=lambda found: max(len(e.path) + bool(e.context) for e in found))
    return [words for each in nearest for words in _words(each)]
