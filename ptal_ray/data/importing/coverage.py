"""Whether the features of each video cover the time that it lasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ptal_ray.data.rates import COMMON_FPS, Frames, RateSource

SHARE = 0.02  # of a video that its features may miss or exceed, beside one snippet
_LISTED = 10
_AGREEING = 0.9  # share of the videos that one factor must explain


@dataclass(frozen=True, kw_only=True)
class Covered:
    """What the features of a video cover.

    Args:
        file: the features.
        snippets: T.
        frames: of the video, with its stride.
        expected_s: seconds to cover: those that the annotations state, else the duration.
        stated_fps: frames per second that the annotations state.
    """

    file: Path
    snippets: int
    frames: Frames
    expected_s: float
    stated_fps: float | None

    @property
    def covered_s(self) -> float:
        """Seconds from the first frame of the first window to the last one of the last window."""
        return (self.snippets - 1) * self.frames.grid.stride_s + self.frames.window_s

    @property
    def ratio(self) -> float:
        """Seconds covered by seconds to cover."""
        return self.covered_s / self.expected_s

    @property
    def snippet_s(self) -> float:
        """Seconds of a snippet, or of its window where that is longer."""
        return max(self.frames.grid.stride_s, self.frames.window_s)

    def with_stated_rate(self) -> Covered:
        """The same with the frame rate that the annotations state, where they do."""
        return replace(self, frames=replace(self.frames, fps=self.stated_fps or self.frames.fps))

    def fits(self, ratio: float = 1.0, share: float = SHARE) -> bool:
        """Whether `ratio` times the time to cover is covered, but for a snippet and `share`.

        With several snippets, a window of more than twice this time never fits, because the middle
        of the first window is then after the end. Otherwise the tolerance, which grows with the
        window, would accept it.
        """
        wanted_s = ratio * self.expected_s
        if self.snippets > 1 and self.frames.window_s > 2 * wanted_s:
            return False
        return abs(self.covered_s - wanted_s) <= ratio * self.snippet_s + share * wanted_s + 1e-6


def length_problem(found: Sequence[Covered], rates: RateSource) -> str:
    """A line on all videos that are covered too little or too much; "" where there is none."""
    wrong = _wrong(found)
    if not wrong:
        return ""
    worst = "; ".join(
        f"{c.file.name}: {c.snippets} snippets cover {c.covered_s:.1f} s of {c.expected_s:.1f} s "
        f"({c.ratio:.2f} times)"
        for c in wrong[:_LISTED]
    )
    more = f"; and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
    return (
        f"the features of {len(wrong)} of {len(found)} videos do not cover the duration (or the "
        f"feature_seconds) of the video within one snippet and {100 * SHARE:g} %: {worst}{more}; "
        f"{_cause(found, rates)}check --fps, --stride and --window, extract the features again, "
        "or pass --allow-length to go on"
    )


def length_remarks(found: Sequence[Covered]) -> dict[str, int]:
    """Counts of what is not as it should be, by what it is."""
    if wrong := _wrong(found):
        text = (
            f"videos whose features cover another time, allowed (worst {wrong[0].ratio:.2f} times)"
        )
        return {text: len(wrong)}
    signs = {np.sign(c.ratio - 1) for c in found if not c.fits(share=0.0)}
    if len(found) < 2 or len(signs) != 1 or any(c.fits(share=0.0) for c in found):
        return {}
    middle = float(np.median([c.ratio for c in found]))
    return {f"videos that are covered {middle:.3f} times, all alike; check --fps": len(found)}


def _wrong(found: Sequence[Covered]) -> list[Covered]:
    """Those that do not fit, worst first."""
    return sorted((c for c in found if not c.fits()), key=lambda c: -abs(np.log(c.ratio)))


def _cause(found: Sequence[Covered], rates: RateSource) -> str:
    """What the videos tell together: one factor explains all, or their own rates fit better."""
    return _factor(found, rates) + _stated(found)


def _factor(found: Sequence[Covered], rates: RateSource) -> str:
    right = sum(c.fits() for c in found)
    ratio = float(np.median([c.ratio for c in found]))
    agreeing = sum(c.fits(ratio) for c in found)
    if len(found) < 2 or max(right, agreeing) < _AGREEING * len(found):
        return ""
    if agreeing <= right:
        return "the others fit; "
    text = "all" if agreeing == len(found) else f"{agreeing} of {len(found)}"
    text += f" videos are covered {ratio:.2f} times"
    if isinstance(rates, float | int):
        return f"{text}: --fps {rates:g} given for {_near(rates * ratio):g}?; "
    fault = "small" if ratio > 1 else "large"
    return f"{text}: is each rate too {fault} by this factor?; "


def _stated(found: Sequence[Covered]) -> str:
    """What the rates that the annotations state would change, where they mend half at least."""
    wrong = sum(not c.fits() for c in found)
    left = sum(not c.with_stated_rate().fits() for c in found)
    if 2 * left > wrong:
        return ""
    return f"with --fps json {'all' if not left else f'all but {left}'} would fit; "


def _near(fps: float) -> float:
    """The common rate within 1 % of `fps`, else `fps` itself, rounded."""
    nearest = min(COMMON_FPS, key=lambda common: abs(common - fps))
    return nearest if abs(nearest / fps - 1) < 0.01 else float(f"{fps:.3g}")
