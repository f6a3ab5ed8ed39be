"""The flags that say how videos become features."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of an extraction."""
    add = parser.add_argument
    add("videos", type=Path, nargs="+", metavar="VIDEOS", help="files, or folders at any depth")
    add("--out", type=Path, required=True, metavar="DIR", help="where features go")
    add("--encoder", default="efficientnet-lite0", metavar="NAME|FILE", help="default: %(default)s")
    add("--fps", type=_positive, help="frames a second that the encoder sees (default: those of "
        "each video)")  # fmt: skip
    add("--stride", metavar="FRAMES|SECONDSs", help="from window to window, such as 16 or 0.5s "
        "(default: 16; of clips: the window)")  # fmt: skip
    add("--window", metavar="FRAMES|SECONDSs", help="what a row of features sees (default: the "
        "stride; of clips: the clip)")  # fmt: skip
    add("--size", type=_size, metavar="N|HxW", help="pixels, of a FILE (default: 224); the middle "
        "of a frame is taken")  # fmt: skip
    add("--mean", type=_three, metavar="R,G,B", help="of a FILE: is subtracted from colours from "
        "0 to 1 (default: 0,0,0)")  # fmt: skip
    add("--std", type=_colours, metavar="R,G,B", help="of a FILE: then divides (default: 1,1,1)")
    add("--clip", type=count, metavar="N", help="of a FILE: frames that it takes at a time, "
        "(B, 3, N, H, W), at equal steps of a window; 1: each alone, (B, 3, H, W), and the rows "
        "of a window are averaged (default: 1); of i3d: its frames (default: 16)")  # fmt: skip
    add("--weights", type=Path, metavar="FILE", help="of i3d: state dict of its stream of images")
    add("--flow", type=Path, metavar="FILE", help="of i3d: state dict of its stream of optical "
        "flow, which OpenCV computes (DIS); with --weights both streams, side by side")  # fmt: skip
    add("--dtype", choices=("float16", "float32"), default="float16", help="default: %(default)s")
    add("--replace", action="store_true", help="extract all videos again, whatever --out holds")
    add("--workers", type=count, default=1, metavar="N", help="processes, by Ray Data; 1: this "
        "one, without Ray (default: 1)")  # fmt: skip
    add("--address", default=os.environ.get("RAY_ADDRESS"), help="of a running Ray cluster "
        "(local: none), whose nodes see videos and --out at the same paths")  # fmt: skip
    add("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")


def _positive(text: str) -> float:
    value = _number(float, text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be a positive number")
    return value


def count(text: str) -> int:
    """A number of things, 1 or more.

    Raises:
        ArgumentTypeError: it is none.
    """
    value = _number(int, text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be an integer of 1 or more")
    return int(value)


def _size(text: str) -> tuple[int, int]:
    parts = [count(part) for part in text.split("x")]
    if len(parts) > 2:
        raise argparse.ArgumentTypeError(f"{text}: pixels, N or HEIGHTxWIDTH, are needed")
    return parts[0], parts[-1]


def _three(text: str) -> tuple[float, ...]:
    values = tuple(_number(float, part) for part in text.split(","))
    if len(values) != 3 or not all(abs(v) < float("inf") for v in values):
        raise argparse.ArgumentTypeError(f"{text}: three numbers such as 0.5,0.5,0.5 are needed")
    return values


def _colours(text: str) -> tuple[float, ...]:
    values = _three(text)
    if min(values) <= 0:
        raise argparse.ArgumentTypeError(f"{text}: three positive numbers are needed")
    return values


def _number(kind: Callable[[str], float], text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: a number is needed") from None
