"""How a product used a frame: fully, with less weight, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemon.model.jobs import REMOVE_FIRST
from daemon.model.records import ProductRecord

Answer = dict[str, Any]


def judged(product: ProductRecord, name: str) -> Answer:
    """What the pipeline made of a frame in a product; nothing where it was used like the others."""
    rows = product.quality.get("frames", [])
    row = next((r for r in rows if name and r.get("NAME") == name), None)
    if row is None and name and name in left_out(product.spec, {}):
        why = "the first exposure of a sequence is often bad"
        out = {"verdict": "left out", "as_sky": "left out", "reason": why}
        return {"judged": {**dict.fromkeys(("figure", "limit", "weight")), **out}}
    if row is None or (row.get("VERDICT", "used"), row.get("AS_SKY", "used")) == ("used", "used"):
        return {}
    columns = ("VERDICT", "AS_SKY", "REASON", "FIGURE", "LIMIT", "WEIGHT")
    return {"judged": {column.lower(): row.get(column) for column in columns}}


def left_out(spec: Mapping[str, Any], quality: Mapping[str, Any]) -> list[str]:
    """Names of the inputs that are not in a product: the first of a sequence, and frames left out by
    judgement."""
    inputs = [i["name"] for i in spec.get("inputs", [])]
    first = inputs[:1] if spec.get("parameters", {}).get(REMOVE_FIRST) else []
    rows = quality.get("frames", [])
    out = {
        r["NAME"]
        for r in rows
        if r.get("VERDICT") == "left out" and r.get("AS_SKY", "left out") == "left out"
    }
    return [name for name in inputs if name in first or name in out]
