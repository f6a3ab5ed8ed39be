"""Optical flow between consecutive images, by OpenCV (extra `flow`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ptal_ray.errors import ConfigError
from ptal_ray.video.decode import Image

METHOD = "DIS medium"  # TV-L1, used for published flow features, is not in opencv-python-headless
Flow = np.ndarray[Any, np.dtype[np.float32]]  # (height, width, 2): pixels to the right and down


def with_flow(images: Iterable[Image]) -> Iterator[tuple[Image, Flow]]:
    """Every image with the flow to the next one; the last image repeats the previous flow.

    Args:
        images: (height, width, 3), RGB; a video of one image has no motion.

    Raises:
        ConfigError: OpenCV is not installed.
    """
    flow_between = _dense_flow()
    before: Image | None = None
    grey = flow = None
    for image in images:
        found = _grey(image)
        if before is not None:
            flow = flow_between(grey, found)
            yield before, flow
        before, grey = image, found
    if before is not None:
        yield before, np.zeros((*before.shape[:2], 2), np.float32) if flow is None else flow


def check_installed() -> None:
    """Check that flow can be computed.

    Raises:
        ConfigError: OpenCV is not installed.
    """
    _dense_flow()


def _dense_flow() -> Callable[[Any, Any], Flow]:
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            f"--flow needs OpenCV ({error}); pip install -c constraints.txt 'ptal-ray[flow]'"
        ) from error
    dense = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def between(first: Image, second: Image) -> Flow:
        """The optical flow (H, W, 2) from one grey frame to the next."""
        found = np.zeros((*first.shape, 2), np.float32)
        return np.asarray(dense.calc(first, second, found), np.float32)

    return between


def _grey(image: Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Brightness (height, width) of an image, by the weights of ITU-R BT.601."""
    weighted = image @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.rint(weighted).astype(np.uint8)
