"""Detections as one self-contained HTML page: a timeline per video, a row per class."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from ptal_ray.data.types import Segments
from ptal_ray.prediction.run import Found

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em;
  color: #222; background: #fff; }
h1 { font-size: 1.3em; } h2 { font-size: 1em; margin: 2em 0 .4em; overflow-wrap: anywhere; }
label { position: sticky; top: 0; display: block; background: #fff; padding: .5em 0; z-index: 1; }
.row { display: flex; align-items: center; }
.name { flex: 0 0 12em; padding-right: 1em; text-align: right; overflow-wrap: anywhere; }
.lane { flex: 1; position: relative; height: 16px; margin: 2px 0; background: #f0f0f0; }
.lane i { position: absolute; top: 0; height: 100%; min-width: 2px; }
.lane i:hover { outline: 2px solid #222; z-index: 1; }
.axis { display: flex; justify-content: space-between; margin-left: 12em; padding-left: 1em;
  color: #666; font-size: .85em; }
"""
_SCRIPT = """
const slider = document.getElementById("least"), shown = document.getElementById("shown");
const bars = [...document.querySelectorAll(".lane i")];
function show() {
  shown.textContent = Number(slider.value).toPrecision(3);
  for (const bar of bars) bar.hidden = Number(bar.dataset.score) < Number(slider.value);
}
slider.addEventListener("input", show);
"""
FAINTEST = 0.25  # opacity of the lowest score of a video
TICKS = 5


def page(found: Found, classes: Sequence[str]) -> str:
    """The page. Bars have the colour of their class and are fainter for lower scores."""
    scores = np.concatenate([[0.0], *(own.score for own in found.detections.values())])
    low, high = float(scores.min()), float(scores.max())
    number = sum(map(len, found.detections.values()))
    body = "\n".join(
        _video(id, own, found.durations[id], classes) for id, own in found.detections.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>Detections</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{number} detections in {len(found.detections)} videos</h1>\n"
        f'<label>score at least <output id="shown">{low:.4g}</output> '
        f'<input id="least" type="range" min="{low}" max="{high}" step="any" value="{low}">'
        "</label>\n"
        f"{body}\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _video(id: str, own: Segments, duration_s: float, classes: Sequence[str]) -> str:
    rows = "\n".join(
        f'<div class="row"><div class="name">{html.escape(classes[label])}</div>'
        f'<div class="lane">{_bars(own, int(label), duration_s, classes)}</div></div>'
        for label in np.unique(own.label)
    )
    ticks = "".join(f"<span>{duration_s * k / TICKS:.1f} s</span>" for k in range(TICKS + 1))
    shown = f'{rows}\n<div class="axis">{ticks}</div>' if len(own) else "<p>no detection</p>"
    return f"<section>\n<h2>{html.escape(id)}</h2>\n{shown}\n</section>"


def _bars(own: Segments, label: int, duration_s: float, classes: Sequence[str]) -> str:
    """The bars of a class; the best is last, so that it is on top."""
    low, high = float(own.score.min()), float(own.score.max())
    mine = own.take(own.label == label)
    mine = mine.take(np.argsort(mine.score, kind="stable"))
    colour = f"hsl({label * 360 // max(len(classes), 1)} 65% 42%)"
    columns = (mine.start_s.tolist(), mine.end_s.tolist(), mine.score.tolist())
    made = []
    for start, end, score in zip(*columns, strict=True):
        strength = (score - low) / (high - low) if high > low else 1.0
        title = html.escape(f"{classes[label]} {score:.3f}, {start:.2f} to {end:.2f} s")
        made.append(
            f'<i style="left:{100 * start / duration_s:.3f}%;'
            f"width:{100 * (end - start) / duration_s:.3f}%;background:{colour};"
            f'opacity:{FAINTEST + (1 - FAINTEST) * strength:.2f}" data-score="{score!r}" '
            f'title="{title}"></i>'
        )
    return "".join(made)
