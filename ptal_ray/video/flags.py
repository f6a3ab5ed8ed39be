"""The flags for the extraction of features."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of an extraction."""
    add = parser.add_argument
    add(
        "videos",
        type=Path,
        nargs="+",
        metavar="VIDEOS",
        help="video files, or folders, searched at any depth",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the features")
    add("--encoder", default="efficientnet-lite0", metavar="NAME|FILE", help="default: %(default)s")
    add("--fps", type=positive, help="frame rate at which videos are sampled (default: that of "
        "each video)")  # fmt: skip
    add("--stride", metavar="FRAMES|SECONDSs", help="distance between windows, e.g. 16 or 0.5s "
        "(default: 16; for clips: the window)")  # fmt: skip
    add("--window", metavar="FRAMES|SECONDSs", help="length of the window of a snippet (default: "
        "the stride; for clips: the clip)")  # fmt: skip
    add("--size", type=_size, metavar="N|HxW", help="for a FILE: input size in pixels (default: "
        "224); frames are cropped to the centre")  # fmt: skip
    add("--mean", type=_three, metavar="R,G,B", help="for a FILE: mean to subtract from colours "
        "in [0, 1] (default: 0,0,0)")  # fmt: skip
    add("--std", type=_colours, metavar="R,G,B", help="for a FILE: standard deviation to divide "
        "by after --mean (default: 1,1,1)")  # fmt: skip
    add("--clip", type=count, metavar="N", help="for a FILE: frames per input (B, 3, N, H, W), "
        "evenly spaced in a window; 1: single frames (B, 3, H, W), whose features are averaged "
        "over a window (default: 1); for i3d: frames per input (default: 16)")  # fmt: skip
    add("--weights", type=Path, metavar="FILE", help="for i3d: state dict of the RGB stream")
    add("--flow", type=Path, metavar="FILE", help="for i3d: state dict of the optical flow "
        "stream; OpenCV computes the flow (DIS); with --weights, both are used")  # fmt: skip
    add("--dtype", choices=("float16", "float32"), default="float16", help="default: %(default)s")
    add("--replace", action="store_true", help="extract all videos again, also those in --out")
    add("--workers", type=count, default=1, metavar="N", help="processes of Ray Data; 1: only "
        "this process, without Ray (default: 1)")  # fmt: skip
    add("--address", default=os.environ.get("RAY_ADDRESS"), help="address of a Ray cluster "
        "(local: none); its nodes must see videos and --out at the same paths")  # fmt: skip
    add("--device", choices=("cpu", "cuda"), help="default: cuda if available")


def positive(text: str) -> float:
    """The type of a positive number.

    Raises:
        ArgumentTypeError: it is not.
    """
    value = _number(float, text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be a positive number")
    return value


def count(text: str) -> int:
    """The type of an integer of at least 1.

    Raises:
        ArgumentTypeError: it is not.
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
