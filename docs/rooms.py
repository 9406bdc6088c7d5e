"""Draws rooms.svg, the picture of architecture.md, from what the modules import.

python docs/rooms.py

A box is a room (a folder) or a module beside the rooms; it stands above all that it imports. An arrow that
others already imply is left out: who imports `plan`, which imports `model`, may import `model` too. Modules
that need nothing of their own package are in one box, and have no arrows: everyone may use them.
"""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
WIDTH, ROW, BOX, GAP, LETTER = 560, 66, 28, 22, 7.3  # pixels
BETWEEN, ROUNDS = 40, 12
PACKAGES = ("daemon", "pipeline")
STYLE = """text { font: 13px "DejaVu Sans", sans-serif; fill: #222 } .title { font-weight: bold }
rect { stroke: #47627d; fill: #ffffff } .room { fill: #d9e6f2 } path { stroke: #8a97a3; fill: none }
svg { background: #ffffff }"""


def imported(path: Path) -> set[str]:
    """Rooms and modules of its own package that this module imports, inside functions too."""
    package, room = path.relative_to(TOP).with_suffix("").parts[:2]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")} - {room}


def needs(package: str) -> dict[str, set[str]]:
    """Of each room and module of a package, those that it imports; the ground as one."""
    found: dict[str, set[str]] = {}
    for path in sorted((TOP / package).rglob("*.py")):
        room = path.relative_to(TOP / package).with_suffix("").parts[0]
        if room not in ("__init__", "__main__"):
            found.setdefault(room, set()).update(imported(path))
    return found


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each: 0 where it imports nothing, else one above the highest that it imports."""
    level: dict[str, int] = {}
    while len(level) < len(graph):
        ready = {n: wants for n, wants in graph.items() if n not in level and wants <= level.keys()}
        if not ready:
            raise ValueError(f"these stand in a circle: {', '.join(sorted(graph.keys() - level.keys()))}")
        level |= {
            name: max((level[other] + 1 for other in wants), default=0) for name, wants in ready.items()
        }
    return level


def arrows(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """(from, to) of the imports that no chain of others implies."""
    reach: dict[str, set[str]] = {}
    for name in sorted(graph, key=floors(graph).get):  # type: ignore[arg-type]
        reach[name] = graph[name].union(*(reach[other] for other in graph[name]))
    return [
        (name, other)
        for name in sorted(graph)
        for other in sorted(graph[name])
        if not any(other in reach[between] for between in graph[name])
    ]


def places(graph: dict[str, set[str]]) -> dict[str, tuple[float, int]]:
    """(x of the middle, floor) of each box: near the boxes that it has arrows with, none over another."""
    level, joined = floors(graph), arrows(graph)
    rows = [sorted(n for n in level if level[n] == k) for k in range(max(level.values()) + 1)]
    x = {name: WIDTH * (k + 1) / (len(row) + 1) for row in rows for k, name in enumerate(row)}
    for _ in range(ROUNDS):
        for row in [*rows, *rows[::-1]]:
            ends = {name: [x[b if a == name else a] for a, b in joined if name in (a, b)] for name in row}
            x |= {name: sum(near) / len(near) for name, near in ends.items() if near}
            _spread(row, x)
    return {name: (round(x[name], 1), level[name]) for name in x}


def _spread(row: list[str], x: dict[str, float]) -> None:
    """Order the boxes of a row, move them apart, and all of them to where they were in the mean."""
    row.sort(key=lambda name: (x[name], name))
    mean = sum(x[name] for name in row) / len(row)
    for one, other in pairwise(row):
        x[other] = max(x[other], x[one] + (width(one) + width(other)) / 2 + GAP)
    shift = mean - sum(x[name] for name in row) / len(row)
    first, last = x[row[0]] - width(row[0]) / 2, x[row[-1]] + width(row[-1]) / 2
    shift = min(max(shift, GAP / 2 - first), WIDTH - GAP / 2 - last)
    x |= {name: x[name] + shift for name in row}


def width(name: str) -> float:
    return LETTER * len(name) + 20


def panel(package: str, highest: int) -> list[str]:
    """The lines of SVG of one package, its ground at the foot of `highest` floors."""
    graph, ground, rooms = parts(package)
    where, foot = places(graph), 40 + (highest + 1) * ROW
    lines = [f'<text class="title" x="{GAP / 2:g}" y="20">{package}/</text>']
    for one, other in arrows(graph):
        (x1, floor1), (x2, floor2) = where[one], where[other]
        y1, y2 = foot - (floor1 + 1) * ROW + BOX, foot - (floor2 + 1) * ROW - 2
        bend = (y1 + y2) / 2
        lines.append(
            f'<path marker-end="url(#tip)" d="M{x1:g} {y1}C{x1:g} {bend:g} {x2:g} {bend:g} {x2:g} {y2}"/>'
        )
    for name, (x, floor) in sorted(where.items()):
        kind = "room" if name in rooms else "module"
        lines += _box(name, x, foot - (floor + 1) * ROW, width(name), kind)
    return lines + _box("  ".join(ground), WIDTH / 2, foot, WIDTH - GAP, "module")


def parts(package: str) -> tuple[dict[str, set[str]], list[str], set[str]]:
    """(imports of all that stands above the ground, the ground, which names are folders)."""
    whole = needs(package)
    rooms = {path.name for path in (TOP / package).iterdir() if (path / "__init__.py").exists()}
    ground = sorted(name for name, wants in whole.items() if not wants and name not in rooms)
    above = {name: wants - set(ground) for name, wants in whole.items() if name not in ground}
    return above, ground, rooms


def _box(text: str, x: float, y: float, wide: float, kind: str) -> list[str]:
    return [
        f'<rect class="{kind}" rx="4" x="{x - wide / 2:g}" y="{y:g}" width="{wide:g}" height="{BOX}"/>',
        f'<text text-anchor="middle" x="{x:g}" y="{y + 19:g}">{text}</text>',
    ]


def drawing() -> str:
    """The whole picture: daemon/ on the left, and on the right pipeline/, which it imports."""
    highest = max(max(floors(parts(package)[0]).values()) for package in PACKAGES)
    height = 40 + (highest + 1) * ROW + BOX + GAP / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH + BETWEEN}" height="{height:g}">',
        f"<style>{STYLE}</style>",
        '<marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="8" markerHeight="8"'
        ' markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#47627d"/></marker>',
    ]
    for number, package in enumerate(PACKAGES):
        lines += [
            f'<g transform="translate({number * (WIDTH + BETWEEN)} 0)">',
            *panel(package, highest),
            "</g>",
        ]
    across = f"M{WIDTH - GAP / 2:g} {height / 2:g}H{WIDTH + BETWEEN + GAP / 2:g}"
    lines.append(f'<path marker-end="url(#tip)" style="stroke-width:3" d="{across}"/>')
    return "\n".join([*lines, "</svg>\n"])


if __name__ == "__main__":
    Path(__file__).with_name("rooms.svg").write_text(drawing(), encoding="utf-8")
