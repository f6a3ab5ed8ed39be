"""APL: its heads, its contrasts, its discriminator and its stages."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_store
from test_trial import config

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Segments
from ptal_ray.methods.apl.actionformer_losses import (
    edge_quality,
    quality_error,
    soft_focal,
    true_quality,
)
from ptal_ray.methods.apl.actionformer_network import ActionFormer, class_scores, joint_quality
from ptal_ray.methods.apl.apl_params import AplBmnTrain, AplTrain, early_params
from ptal_ray.methods.apl.detector_params import PRETRAINING, SUPERVISED
from ptal_ray.methods.apl.icd import Discriminator, instance_vectors, likeness, partners
from ptal_ray.methods.apl.instances import cropped
from ptal_ray.methods.apl.selection import revised, thresholds
from ptal_ray.methods.method import load
from ptal_ray.ops.segments import paired_tiou
from ptal_ray.training.stages import start


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "tiny", train=10)


def test_each_stage_counts_positives_anew(store: Path) -> None:
    made = config(store, "apl", train={"first_positives": 55.0, "tau_neg": 0.0})
    trial = start(made)
    assert trial.learner.model.positives.tolist() == [55, 55]
    trial.train_step()
    assert (trial.learner.model.positives != 55).all()
    alone = start(config(store, "apl.actionformer", train={"first_positives": 55.0}))
    alone.train_step()
    assert alone.learner.model.positives[1] == 55 != alone.learner.model.positives[0]


def test_ignored_instances_stay_ignored_at_the_edge_of_a_crop() -> None:
    pseudo = {
        "start_t": torch.tensor([[0.0, 0.0]]), "end_t": torch.tensor([[40.0, 40.0]]),
        "label": torch.tensor([[1, 1]]), "ignored": torch.tensor([[False, True]]),
    }  # fmt: skip
    found = cropped(pseudo, torch.tensor([30]), torch.tensor([20]))
    assert found["label"].tolist() == [[-1, 1]]


def test_the_heads_and_the_discriminator_have_the_published_size() -> None:
    plain = ActionFormer(32, 20, AplTrain(alqa="none", levels=1))
    aware = ActionFormer(32, 20, AplTrain(alqa="both", levels=1))
    count = [sum(p.numel() for p in m.parameters()) for m in (plain, aware)]
    assert count[1] - count[0] == 2 * (512 * 3 + 1)
    assert sum(p.numel() for p in Discriminator(2048, 128).parameters()) == 524545


def test_quality_is_that_of_the_segments() -> None:
    rng = np.random.default_rng(0)
    edges, target = rng.uniform(0, 5, (2, 200, 2))
    tiou, tnd = edge_quality(torch.from_numpy(edges), torch.from_numpy(target))
    want = paired_tiou(-edges[:, 0], edges[:, 1], -target[:, 0], target[:, 1])
    np.testing.assert_allclose(tiou, want, atol=1e-12)
    apart = (edges[:, 1] - edges[:, 0]) / 2 - (target[:, 1] - target[:, 0]) / 2
    whole = np.maximum(edges, target).sum(axis=1)
    np.testing.assert_allclose(tnd, (apart / whole) ** 2, atol=1e-12)
    joint = joint_quality(torch.stack([tiou, tnd], dim=1), 0.2)
    assert joint.min() == 0.2 and torch.all(joint <= tiou.clamp(min=0.2))


@pytest.mark.parametrize(("alqa", "want"), [("tiou", [0.6]), ("diou", [0.5]), ("both", [0.6, 0.1])])
def test_heads_of_table_3_predict_what_their_name_says(alqa: str, want: list[float]) -> None:
    rated = true_quality(torch.tensor([0.6]), torch.tensor([0.1]), alqa)
    torch.testing.assert_close(rated, torch.tensor([want]))
    torch.testing.assert_close(
        joint_quality(rated, 1e-3), torch.tensor([0.6 if alqa == "tiou" else 0.5])
    )
    model = ActionFormer(16, 3, AplTrain(alqa=alqa, levels=1, width=16, heads=2))
    made = model(torch.randn(1, 8, 16), torch.ones(1, 8, dtype=torch.bool))
    assert made.quality is not None and made.quality.shape == (1, 12, len(want))
    expected = torch.sigmoid(made.logit) * joint_quality(made.quality, 1e-3)[..., None]
    torch.testing.assert_close(class_scores(made, 1e-3), expected)


def test_far_edges_have_no_negative_quality() -> None:
    assert true_quality(torch.tensor([0.1]), torch.tensor([0.4]), "diou").tolist() == [[0.0]]


@pytest.mark.parametrize("alqa", ["none", "tiou", "diou", "both"])
@pytest.mark.parametrize("quality_loss", ["bce", "kl"])
def test_every_form_of_the_heads_trains(store: Path, alqa: str, quality_loss: str) -> None:
    train = {"alqa": alqa, "quality_loss": quality_loss, "pretrain_steps": 0, "supervised_steps": 2}
    trial = start(config(store, "apl", train=train))
    terms = trial.train_step()
    assert ("quality" in terms) == (alqa != "none")
    assert all(torch.isfinite(v) for v in terms.values())


def test_divergence_of_the_heads_is_that_of_shares_over_positives() -> None:
    truth = torch.tensor([[[0.2], [0.6], [0.9], [0.0]]])
    positive = torch.tensor([[True, True, False, True]])
    found = torch.tensor([[[0.5], [0.25], [0.1], [0.25]]])
    made = quality_error(found, truth, positive, "kl")[0, :2]
    torch.testing.assert_close(made, 3 * torch.tensor([0.25, 0.75]) * torch.tensor([0.5, 3]).log())
    alike = quality_error(truth / 2, truth, positive, "kl")
    torch.testing.assert_close(alike[positive], torch.zeros(3))
    assert quality_error(found, truth, positive, "bce")[0, 0] > 0


def test_the_contrast_of_unlabelled_videos_has_the_weight_beta(store: Path) -> None:
    trial = start(config(store, "apl"))
    rows = trial.batches.plan.rows(0)
    batch = trial.batches.training(trial.step, rows)
    assert batch.pseudo is not None and len(batch.pseudo["kind"].unique()) == 2

    def contrast(**changes: Any) -> float:
        hp = dataclasses.replace(trial.task.hp, **changes)
        trial.learner.model.load_state_dict(before)
        terms = trial.task.method.loss(trial.learner.model, batch, hp, trial.step_context())
        return terms["contrast"].item()

    before = {k: v.clone() for k, v in trial.learner.model.state_dict().items()}
    none, two, four = (contrast(unlabelled_weight=beta) for beta in (0.0, 2.0, 4.0))
    assert four - none == pytest.approx(2 * (two - none), rel=1e-4) and two > none > 0
    assert contrast(contrast_videos="labelled", unlabelled_weight=4.0) == pytest.approx(none)


@pytest.mark.parametrize("variant", ["sigmoid", "quality"])
def test_soft_focal_loss(variant: str) -> None:
    score = torch.tensor([0.2, 0.7, 0.0, 1.0])
    label = torch.tensor([0.5, 0.7, 0.3, 0.0])
    made = soft_focal(score, label, variant)
    p = score.clamp(1e-6, 1 - 1e-6)
    cross = -(label * p.log() + (1 - label) * (1 - p).log())
    if variant == "quality":
        want = (label - p) ** 2 * cross
        assert made[1] == 0
    else:
        right = p * label + (1 - p) * (1 - label)
        want = (0.25 * label + 0.75 * (1 - label)) * (1 - right) ** 2 * cross
    torch.testing.assert_close(made, want)


def test_partners_are_others_of_the_class_and_of_other_classes() -> None:
    every = torch.tensor([1, 0, -1, 0, 2, 0, 1, -1])
    anchor = torch.tensor([1, 0, 4])
    draw = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
    made = partners(anchor, every, draw, 3)
    same, other = made[:, :3], made[:, 3:]
    assert set(same[0].tolist()) == {3, 5}  # two others, again and again
    assert set(same[1].tolist()) == {6}
    assert set(same[2].tolist()) == {4}  # alone in its class
    for row, chosen in zip(anchor, other, strict=True):
        assert len(set(chosen.tolist())) == 3
        assert all(every[c] >= 0 and every[c] != every[row] for c in chosen)
    alone = partners(torch.tensor([0]), torch.tensor([4, 4, -1]), draw[:1], 2)
    assert alone.tolist() == [[1, 1, 0, 0]]  # no other class


def test_partners_are_drawn_alike_and_once() -> None:
    generator = torch.Generator().manual_seed(0)
    every = torch.randint(-1, 4, (60,), generator=generator)
    anchor = int(torch.nonzero(every == 2)[0])
    own = (every == 2).nonzero()[:, 0].tolist()
    made = partners(torch.full((4000,), anchor), every, torch.rand(4000, 2, generator=generator), 5)
    for part, allowed in (
        (made[:, :5], set(own) - {anchor}),
        (made[:, 5:], set((every >= 0).nonzero()[:, 0].tolist()) - set(own)),
    ):
        assert all(len(row.unique()) == 5 for row in part[:50])
        found = torch.bincount(part.flatten(), minlength=60)
        assert set(found.nonzero()[:, 0].tolist()) == allowed
        share = found[sorted(allowed)] / found.sum() * len(allowed)
        assert share.min() > 0.8 and share.max() < 1.2


def test_likeness_is_the_mean_score_with_the_class() -> None:
    torch.manual_seed(0)
    model = Discriminator(6, 8)
    found, own = torch.randn(5, 6), torch.randn(7, 6)
    label, classes = np.array([0, 1, 1, 2, 0]), np.array([0, 0, 1, 1, 1, 0, 1])
    made = likeness(model, found, label, model.other_side(own).detach(), classes)
    layers = torch.nn.Sequential(model.first, torch.nn.ReLU(), model.second, torch.nn.Sigmoid())
    for row, c in enumerate(label):
        rows = [layers(torch.cat([found[row], x])).item() for x in own[classes == c]]
        assert np.isnan(made[row]) if not rows else made[row] == pytest.approx(np.mean(rows))
    assert np.isnan(made[3])  # nothing annotated to compare with


def test_instance_vectors_are_maxima_over_covered_snippets(store: Path) -> None:
    source = FeatureStore.open(store)
    ids = source.ids("train")
    split = PackedSplit(source, ids, torch.device("cpu"))
    own = Segments(
        start_s=np.array([1.2, 3.0, 90.0]), end_s=np.array([2.6, 3.0, 95.0]),
        label=np.array([0, 1, 1]), score=np.ones(3),
    )  # fmt: skip
    features = torch.tensor(source.video(ids[0]).features)
    made = instance_vectors(split, 0, own)  # half a second a snippet
    assert torch.equal(made[0], features[2:6].amax(dim=0))
    assert torch.equal(made[1], features[6])
    assert torch.equal(made[2], features[-1])


def segments(score: list[float], label: list[int]) -> Segments:
    zero = np.zeros(len(score))
    return Segments(start_s=zero, end_s=zero + 1, label=np.array(label), score=np.array(score))


def test_tau_pos_is_mean_and_deviations_of_its_scope() -> None:
    videos = [segments([0.9, 0.5, 0.3, 0.2], [0, 0, 1, 1]), segments([0.4, 0.8], [1, 1])]
    rules: dict[str, Any] = {"adaptive": True, "tau_pos_k": 0.5}

    def limits(scope: str) -> list[Any]:
        return thresholds(videos, SimpleNamespace(tau_pos_scope=scope, **rules))

    every = np.array([0.9, 0.5, 0.3, 0.2, 0.4, 0.8])
    want = every.mean() + 0.5 * every.std()
    np.testing.assert_allclose(np.concatenate(limits("all")), want)
    own = np.array([0.3, 0.2, 0.4, 0.8])
    np.testing.assert_allclose(limits("class")[1], own.mean() + 0.5 * own.std())
    np.testing.assert_allclose(limits("video")[1], 0.6 + 0.5 * 0.2)
    rules["tau_pos_k"] = 50.0  # never above all scores
    assert (np.concatenate(limits("all")) == np.quantile(every, 0.9)).all()
    assert thresholds([], SimpleNamespace(tau_pos_scope="all", **rules)) == []
    rules["adaptive"] = False
    assert (np.concatenate(limits("all")) == 0).all()
    assert thresholds([], SimpleNamespace(tau_pos_scope="all", **rules)) == []


def test_likeness_drops_and_mines() -> None:
    positive = np.array([True, True, True, False, False, False])
    alike = np.array([0.2, 0.5, np.nan, 0.9, 0.5, np.nan])
    hp = SimpleNamespace(eliminate=True, mine=True, tau_icd=0.3, promote_icd=0.7)
    assert revised(positive, alike, hp).tolist() == [False, True, True, True, False, False]
    hp.eliminate = False
    assert revised(positive, alike, hp).tolist() == [True, True, True, True, False, False]
    hp.mine = False
    assert (revised(positive, alike, hp) == positive).all()


@pytest.mark.parametrize("params", [AplTrain, AplBmnTrain])
def test_earlier_stages_see_what_is_theirs(params: type) -> None:
    hp = params(
        lr=0.5, early_lr=0.25, tau_neg=0.2, labelled_fraction=0.3, sampled=7, contrast_weight=0.5
    )
    middle = early_params(hp, SUPERVISED)
    assert (middle.lr, middle.tau_neg, middle.labelled_fraction) == (0.25, params().tau_neg, 0.3)
    first = early_params(middle, PRETRAINING)
    assert (first.lr, first.contrast_weight, first.sampled) == (0.25, params().contrast_weight, 7)
    assert first.labelled_fraction == 0.3  # it decides which videos are in the fold


def test_stages_know_their_parameters() -> None:
    for name in ("apl", "apl.apl_bmn"):
        stage = load(name).stage
        while stage is not None:
            hp = load(name).train_params()
            stage.params(hp)
            assert getattr(hp, stage.steps) > 0
            stage = load(stage.method).stage
