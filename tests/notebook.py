"""Runs the code cells of a notebook, without Jupyter: for a test, and to keep its outputs fresh.

    python tests/notebook.py docs/tutorial.ipynb        # run it in an empty folder, write the outputs into it

Cells run in one namespace in the working directory. What they print is their output; figures that are open
at the end of a cell are its pictures. The value of a last line is not shown: the notebook prints it.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def run(notebook: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The outputs of each cell, as nbformat 4 has them. A cell that raises says which it was."""
    import matplotlib

    matplotlib.use("Agg", force=True)
    from matplotlib import pyplot

    names: dict[str, Any] = {"__name__": "__main__"}
    outputs = []
    for number, cell in enumerate(notebook["cells"]):
        outputs.append([])
        if cell["cell_type"] != "code":
            continue
        out, err = io.StringIO(), io.StringIO()
        source = "".join(cell["source"])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                exec(compile(source, f"cell {number}", "exec"), names)
            except Exception as error:
                error.add_note(f"in cell {number} of the notebook:\n{source}")
                raise
        for stream, text in (("stderr", err.getvalue()), ("stdout", out.getvalue())):
            if text:
                outputs[-1].append(
                    {"output_type": "stream", "name": stream, "text": text.splitlines(keepends=True)}
                )
        for figure in map(pyplot.figure, pyplot.get_fignums()):
            outputs[-1].append(_picture(figure))
        pyplot.close("all")
    return outputs


def _picture(figure: Any) -> dict[str, Any]:
    picture = io.BytesIO()  # noise compresses badly without loss
    figure.savefig(picture, format="jpeg", dpi=80, bbox_inches="tight", pil_kwargs={"quality": 70})
    data = {"image/jpeg": base64.b64encode(picture.getvalue()).decode(), "text/plain": ["<figure>"]}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def main(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            outputs = run(notebook)
        finally:
            os.chdir(here)
    count = 0
    for cell, made in zip(notebook["cells"], outputs, strict=True):
        if cell["cell_type"] == "code":
            count += 1
            cell |= {"execution_count": count, "outputs": made}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
