"""The last stage of APL: every batch has labelled and pseudo-labelled videos."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptal_ray.data.types import Segments
from ptal_ray.methods.apl.apl_params import AplStages, AplT, early_params
from ptal_ray.methods.apl.detector import Detector, Unlabelled
from ptal_ray.methods.apl.detector_params import SUPERVISED
from ptal_ray.methods.apl.instances import instances, label_segments, table
from ptal_ray.methods.apl.rules import STAGES
from ptal_ray.methods.apl.selection import select
from ptal_ray.methods.apl.supervised import contrast_term
from ptal_ray.methods.method import Batch, DecodeT, Known, Method, Pseudo, Stage, Step

LABELLED, UNLABELLED, UNUSED = 0, 1, -1  # kinds of video


def loss(
    detector: Detector[AplT, DecodeT], model: nn.Module, batch: Batch, hp: AplT, step: Step
) -> dict[str, Tensor]:
    """The detector's terms over both kinds of video, and "contrast" with the labels of both.

    Source: APL Eq. 12.
    """
    output = detector.run(model, batch, step)
    assert batch.pseudo is not None
    guessed = batch.pseudo["kind"] == UNLABELLED
    unlabelled = Unlabelled(videos=guessed, weight=hp.unlabelled_weight)
    with torch.autocast(batch.mask.device.type, enabled=False):
        own = instances(batch)
        terms = detector.terms(model, output, batch, own, hp, step, unlabelled)
        kinds = [(~guessed, 1.0)]
        if hp.contrast_videos == "all":
            kinds.append((guessed, hp.unlabelled_weight))
        return terms | contrast_term(detector.levels(output), batch, own, hp, step, kinds)


def pseudo_labels(known: Known, hp: AplStages) -> Pseudo:
    """Annotations of the labelled videos, and selected predictions of the others.

    Returns:
        See `instances.table`, and "kind" (V,) int64.
    """
    assert known.stage is not None
    predictions = {found.id: Segments(**found.arrays) for found in known.stage.scores}
    positive, candidate = select(known, predictions, hp)
    kind = [
        LABELLED if id not in positive else UNLABELLED if len(positive[id]) else UNUSED
        for id in known.split.ids
    ]
    ignored = candidate if hp.ignore_candidates else {}
    found = table(known.split, known.truth() | positive, ignored)
    return found | {"kind": torch.tensor(kind)}


def groups(made: Pseudo, hp: AplStages) -> list[NDArray[Any]]:
    """Rows of the labelled videos and of those with pseudo-labels, if there are any."""
    kind = made["kind"].cpu().numpy()
    every = [np.flatnonzero(kind == LABELLED), np.flatnonzero(kind == UNLABELLED)]
    return [rows for rows in every if len(rows)]


def joint(detector: Detector[AplT, DecodeT], name: str, before: str) -> Method[AplT, DecodeT]:
    """This stage of a detector as the method `name`, after the stage `before`."""
    return Method(
        name=name,
        supervision="semi",
        train_params=detector.train_params,
        decode_params=detector.decode_params,
        build=detector.build,
        check=detector.check,
        loss=partial(loss, detector),
        scores=detector.scores,
        decode=detector.decode,
        network=detector.network,
        network_lengths=detector.network_lengths,
        label_segments=label_segments,
        labels=pseudo_labels,
        groups=groups,
        rules=(*detector.rules, *STAGES, *detector.rates),
        stage=Stage(
            method=before,
            params=partial(early_params, stage=SUPERVISED),
            steps="supervised_steps",
            rules=detector.label_rules,
            starts=True,
        ),
    )
