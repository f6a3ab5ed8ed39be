"""The page and the lines of `python -m ptal_ray.decode`."""

from __future__ import annotations

import shlex
from html import escape
from pathlib import Path

from ptal_ray.reporting.decode_again import Again, Landscape
from ptal_ray.reporting.html.outcome import note
from ptal_ray.reporting.html.page import Figure, Section, page, paragraph, shown, table
from ptal_ray.storage.ownership import check_files, check_writable
from ptal_ray.storage.whole import folder_made, whole
from ptal_ray.study.events import dumps

_TITLE = "Decoding again: "


def said(found: Again) -> str:
    """What a person reads."""
    rows = {"defaults": found.default, "study's choice": found.chosen, "best setting": found.best}
    trials = ", ".join(map(str, found.trials))
    lines = [
        f"study   {found.study}, scores of trial {trials}: {found.videos} held-out videos, "
        f"{found.settings} settings, {found.per_second:.0f} a second",
        *(f"mAP     {name:<15} {100 * value:6.2f} %" for name, value in rows.items()),
        f"        {'on other videos':<15} {100 * found.expected:6.2f} %  (best, cross-fitted)",
        f"decode  {flags(found)}",
    ]
    return "\n".join(lines)


def flags(found: Again) -> str:
    """The searched parameters of the best setting as flags of a search or a training."""
    words = [f"decode.{name}={dumps(found.decode[name])}" for name in found.searched]
    return " ".join(f"--set {shlex.quote(word)}" for word in words)


def check_page(path: Path) -> None:
    """Checks, before minutes of decoding, that the page can be written.

    Raises:
        ConfigError: another file lies there, or the folder cannot be written to.
    """
    check_files("--out", path.parent, {path.name: _is_page})
    check_writable("--out", path)


def write_page(found: Again, path: Path) -> None:
    """Writes the page in the place of an earlier one."""
    rows = [
        ["defaults", 100 * found.default], ["study's choice", 100 * found.chosen],
        ["best setting", 100 * found.best], ["best setting, cross-fitted", 100 * found.expected],
    ]  # fmt: skip
    setting = [[f"decode.{name}", shown(value)] for name, value in found.decode.items()]
    parts: list[str | Figure] = [
        paragraph(said(found).splitlines()[0].partition(" ")[2].strip(), "verdict"),
        table(["", "mAP on held-out videos, %"], rows),
        note(
            "Cross-fitted: each half of the videos decoded with the best setting of the other half."
        ),
        f"<pre>{escape(flags(found))}</pre>",
    ]
    if found.landscape:
        parts += [_heat_map(found.landscape), note("The other parameters as in the best setting.")]
    parts.append(table(["parameter", "best setting"], setting))
    text = page(_TITLE + found.study, [Section(key="decode", title="", parts=parts)])
    with folder_made(path.parent), whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _heat_map(own: Landscape) -> Figure:
    trace = {
        "type": "heatmap", "x": [shown(v) for v in own.values[0]],
        "y": [shown(v) for v in own.values[1]], "colorscale": "Viridis",
        "z": [[100 * v for v in row] for row in own.objective],
        "colorbar": {"title": {"text": "mAP, %"}},
    }  # fmt: skip
    axes = {"xaxis": {"title": {"text": f"decode.{own.names[0]}"}, "type": "category"},
            "yaxis": {"title": {"text": f"decode.{own.names[1]}"}, "type": "category",
                      "automargin": True}}  # fmt: skip
    return Figure(data=[trace], layout=axes, height=460)


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return f"<title>{_TITLE}".encode() in file.read(400)
