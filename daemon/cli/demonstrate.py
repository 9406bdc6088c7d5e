"""nirid simulate, nirid demo: a synthetic night on disk, and one that lands in front of the daemon."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.cli import FAILED, fail
from daemon.cli.output import Place, console, json_option, print_json, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from daemon.demo.night import Made, Progress


class _WithPresets(click.Command):
    """Its help ends with the nights that there are, read when it is asked for."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from pipeline.simulate import PRESETS

        with formatter.section("Presets"):
            formatter.write_dl([(preset.name, preset.description) for preset in PRESETS.values()])


@click.command(cls=_WithPresets, short_help="Write a synthetic raw night with known truth.")
@click.argument("folder", type=Place(file_okay=False, path_type=Path))
@click.option("--preset", default="example1", show_default=True, metavar="NAME", help="Which night.")
@click.option("--seed", type=int, metavar="N", help="Another night of the same kind.")
@click.option(
    "--cadence", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Pause after each frame."
)
@json_option
def simulate(folder: Path, preset: str, seed: int | None, cadence: float, as_json: bool) -> None:
    """Write a synthetic raw night into FOLDER, in order of observation, and truth.json: what was put in."""
    from pipeline.params import suggest
    from pipeline.simulate import PRESETS, simulate_night

    if preset not in PRESETS:
        near = suggest(preset, PRESETS)
        raise click.UsageError(f"no preset {preset}{near}; there are: {', '.join(PRESETS)}")
    shown = sys.stderr.isatty() and not as_json
    files = []

    def written(path: Path, number: int, total: int) -> None:
        files.append(str(path))
        if shown:
            click.echo(f"\r{number}/{total} {path.name} ", nl=number == total, err=True)
        if cadence and number < total:
            time.sleep(cadence)

    truth = simulate_night(folder, preset, seed, on_file=written)
    if as_json:
        print_json({"truth": str(truth), "preset": preset, "files": files})
    else:
        click.echo(f"{len(files)} files in {folder}; what was put in is in {truth}")


@click.command(short_help="A synthetic night lands and becomes products, live.")
@click.option(
    "--folder",
    type=Place(file_okay=False, path_type=Path),
    default="nirid-demo",
    show_default=True,
    metavar="DIR",
    help="Where it all happens; emptied if it is of an earlier demonstration.",
)
@click.option("--preset", type=click.Choice(["example1", "tiny"]), default="example1", show_default=True)
@click.option(
    "--speed", type=click.FloatRange(0, min_open=True), default=1.0, metavar="X", help="Land X times faster."
)
@click.option(
    "--picture",
    type=Place(path_type=Path),
    metavar="FILE",
    help="Also make the picture of a raw frame beside the stack.",
)
@json_option
def demo(folder: Path, preset: str, speed: float, picture: Path | None, as_json: bool) -> None:
    """Start the daemon on an empty folder, let a synthetic night land in it, and judge the products.

    The night can be watched in a browser meanwhile, where nirid[web] is installed: the address is printed.

    Exit 0 only when all products exist and agree with what the simulation put in.
    """
    from daemon.demo import night
    from daemon.demo.night import EXPECTED
    from pipeline.files import outputs

    if picture is not None:
        outputs.check(picture, "picture")
    began = time.monotonic()
    screen = _Screen(EXPECTED[preset], live=sys.stdout.isatty() and not as_json, quiet=as_json)
    with screen:
        made, checks = night.run(folder.absolute(), preset, speed, picture, screen.show)
    bad = [check for check in checks if not check.ok]
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        products = [vars(m) for m in made]
        print_json({"products": products, "checks": [c._asdict() for c in checks], "seconds": seconds})
    else:
        _report(made, checks, bad, seconds, picture, folder)
    if bad:
        fail(f"{len(bad)} of {len(checks)} comparisons with the truth failed", FAILED)


def _report(
    made: list[Made], checks: list[Any], bad: list[Any], seconds: float, picture: Path | None, folder: Path
) -> None:
    out = console()
    rows = [
        (
            m.name,
            m.frames,
            f"{m.seconds:.1f} s",
            f"{m.final_seconds:.1f} s",
            m.versions,
            sum(c.ok for c in checks if c.name.startswith(f"{m.kind}:")),
            m.preview,
        )
        for m in made
    ]
    columns = (
        "product",
        ">frames",
        ">after its last frame",
        ">after all it uses",
        ">versions",
        ">checks",
        "preview",
    )
    out.print(table(columns, rows))
    for check in bad:
        out.print(f"NOT RIGHT  {check.sentence}", markup=False)
    if picture:
        out.print(f"picture: {picture}", markup=False)
    out.print(f"in a browser: nirid --state {folder / 'state'} web", markup=False, soft_wrap=True)
    out.print(f"{len(made)} products, {len(checks) - len(bad)} of {len(checks)} comparisons with the truth "
              f"hold, {seconds:g} s in all", markup=False)  # fmt: skip


class _Screen:
    """Live progress at a terminal; elsewhere a line whenever something has changed."""

    def __init__(self, expected: dict[str, str], *, live: bool, quiet: bool) -> None:
        self._expected, self._quiet, self._said = expected, quiet, set[str]()
        self._live: Any = None
        if live:
            from rich.live import Live

            self._live = Live(console=console(), refresh_per_second=8, transient=True)

    def __enter__(self) -> _Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        if self._live:
            self._live.update(self._picture(progress))
        elif not self._quiet:
            for line in self._lines(progress):
                if line not in self._said:
                    self._said.add(line)
                    click.echo(line)

    def _picture(self, progress: Progress) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        landed = len(progress.landed)
        head = Text(f"{progress.doing}   {landed}/{progress.files or '?'} files have landed", style="bold")
        bar = ProgressBar(total=progress.files or 1, completed=landed, width=60)
        where = Text(f"watch it at {progress.page}" if progress.page else "", style="cyan")
        return Group(head, bar, where, table(("", "product", ""), self._rows(progress)))

    def _rows(self, progress: Progress) -> list[tuple[Any, str, str]]:
        from rich.text import Text

        done = {p["name"]: p for p in progress.products}
        rows: list[tuple[Any, str, str]] = []
        for name in self._expected.values():
            if product := done.get(name):
                version = f"version {product['version']}, {product['seconds'] or 0:.1f} s of work"
                rows.append((Text("made", style="green"), name, version))
            else:
                rows.append((Text("..."), name, ""))
        for group in progress.groups:
            rows.append(
                (
                    Text(group["state"], style="yellow"),
                    f"{group['rule']}, {group['frames']} frames",
                    group["reason"],
                )
            )
        return rows

    def _lines(self, progress: Progress) -> list[str]:
        lines = [progress.doing.partition(":")[0]] if progress.doing else []
        lines += [f"watch it at {progress.page}"] if progress.page else []
        if progress.landed and len(progress.landed) in (progress.files, *range(0, progress.files, 10)):
            lines.append(f"{len(progress.landed)}/{progress.files} files have landed")
        lines += [f"waiting: {g['rule']}: {g['reason']}" for g in progress.groups if g["state"] == "waiting"]
        lines += [f"made {p['name']}, version {p['version']}" for p in progress.products]
        return lines
