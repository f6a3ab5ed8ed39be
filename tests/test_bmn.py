"""BMN against its released code (golden cases), and what must hold of any of its inputs."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_store, shared

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Grid, Scores
from ptal_ray.errors import ConfigError
from ptal_ray.methods.apl.apl_params import AplBmnTrain
from ptal_ray.methods.apl.bmn_decode import decode, proposal_scores, scores, window_starts
from ptal_ray.methods.apl.bmn_labels import label_maps, targets
from ptal_ray.methods.apl.bmn_loss import losses
from ptal_ray.methods.apl.bmn_network import Bmn, BmnOutput, build
from ptal_ray.methods.apl.bmn_params import BmnDecode, BmnTrain
from ptal_ray.methods.apl.detector import Unlabelled
from ptal_ray.methods.method import Batch, Step
from ptal_ray.ops.boundary_matching import cells

STEP = Step(index=0, epoch=0.0, generator=torch.Generator())


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def golden() -> tuple[dict[str, Any], Any]:
    folder = shared("golden/bmn")
    return json.loads((folder / "cases.json").read_text()), np.load(folder / "cases.npz")


def tensors(file: Any, case: str) -> dict[str, torch.Tensor]:
    return {
        k.partition("/")[2]: torch.from_numpy(file[k])
        for k in file.files
        if k.partition("/")[0] == case
    }


def test_golden_label_maps() -> None:
    cases, file = golden()
    for case in cases["label_maps"]:
        video, length = case["video"], case["tscale"]
        seconds = video["feature_frame"] / video["duration_frame"] * video["duration_second"]
        edges = torch.tensor([a["segment"] for a in video["annotations"]]).double()
        start, end = (edges / seconds * length).T[:, None]
        made = label_maps(
            start, end, torch.zeros(start.shape, dtype=torch.long), torch.tensor([length]), length
        )
        want = tensors(file, case["name"])
        torch.testing.assert_close(made.start[0], want["start"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(made.end[0], want["end"], atol=1e-5, rtol=1e-5)
        assert (made.start > 0.5).sum() == case["n_start_pos"]
        first, last = cells(length)
        iou = torch.zeros(length, length)
        iou[first, last] = made.iou[0]
        torch.testing.assert_close(iou, want["iou_map"], atol=1e-5, rtol=1e-5)


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The released code's state as one of `Bmn`."""
    places = {
        "x_1d_b.0": "base_convs.0", "x_1d_b.2": "base_convs.1", "x_1d_s.0": "start_convs.0",
        "x_1d_s.2": "start_convs.1", "x_1d_e.0": "end_convs.0", "x_1d_e.2": "end_convs.1",
        "x_1d_p.0": "proposal_conv", "x_3d_p.0": "matching", "x_2d_p.0": "reduce",
        "x_2d_p.2": "map_convs.0", "x_2d_p.4": "map_convs.1", "x_2d_p.6": "rate",
    }  # fmt: skip
    made = {}
    for old, value in state.items():
        place, _, kind = old.rpartition(".")
        if kind == "weight" and place == "x_3d_p.0":
            value = value[..., 0, 0].permute(2, 1, 0)
        if kind == "weight" and place == "x_2d_p.0":
            value = value[..., 0, 0]
        made[f"{places[place]}.{kind}"] = value
    return made


def test_golden_forward() -> None:
    cases, file = golden()
    for case in cases["forward"]:
        opt, hidden, a = case["opt"], case["hidden"], tensors(file, case["name"])
        hp = BmnTrain(
            base_dim=hidden["h1d"], sample_dim=hidden["h3d"], map_dim=hidden["h2d"],
            num_sample=opt["num_sample"], per_bin=opt["num_sample_perbin"],
            context=opt["prop_boundary_ratio"],
        )  # fmt: skip
        model = Bmn(opt["feat_dim"], 3, hp)
        state = {k.removeprefix("state/"): v for k, v in a.items() if k.startswith("state/")}
        rest = model.load_state_dict(renamed(state), strict=False)
        assert not rest.unexpected_keys
        assert all(k.startswith("classifier") for k in rest.missing_keys)
        made = model(a["x"].mT, torch.ones(len(a["x"]), a["x"].shape[2], dtype=torch.bool))
        torch.testing.assert_close(made.start, a["start"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(made.end, a["end"], atol=1e-5, rtol=1e-5)
        want = a["confidence_map"][:, :, made.first, made.last]
        torch.testing.assert_close(made.maps, want, atol=1e-5, rtol=1e-5)


def output(a: dict[str, torch.Tensor]) -> BmnOutput:
    maps, start = a["pred_bm"], a["pred_start"]
    first, last = (torch.from_numpy(edge) for edge in cells(start.shape[1]))
    return BmnOutput(
        base=start[..., None], start=start, end=a["pred_end"], maps=maps[:, :, first, last],
        first=first, last=last, video=start.new_full((len(start), 1), 0.5),
    )  # fmt: skip


def test_golden_losses() -> None:
    cases, file = golden()
    for case in cases["losses"]:
        a, length = tensors(file, case["name"]), case["T"]
        for name in ("pred_bm", "pred_start"):
            a[name].requires_grad_()
        most = max(len(s) for s in case["segments_percent"])
        edges = torch.full((case["B"], most, 2), -1.0)
        for row, own in enumerate(case["segments_percent"]):
            edges[row, : len(own)] = torch.tensor(own) / 99.84 * length
        label = torch.where(edges[..., 0] >= 0, 0, -1)
        made = output(a)
        draw = torch.stack([a["rand0"], a["rand1"]], dim=1)[..., made.first, made.last]
        terms = losses(
            made, {"start_t": edges[..., 0], "end_t": edges[..., 1], "label": label},
            torch.ones_like(a["pred_end"], dtype=torch.bool), BmnTrain(), draw, STEP,
        )  # fmt: skip
        assert terms["boundary"].item() == pytest.approx(case["tem"], rel=1e-5)
        if np.isnan(case["total"]):  # no cell is good enough; the reference divides by 0
            assert terms["regression"] == 0 and terms["classification"] == 0
            continue
        assert terms["regression"].item() == pytest.approx(10 * case["pem_reg"], rel=1e-5)
        assert terms["classification"].item() == pytest.approx(case["pem_cls"], rel=1e-5)
        total = terms["boundary"] + terms["regression"] + terms["classification"]
        assert total.item() == pytest.approx(case["total"], rel=1e-5)
        total.backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(a["pred_bm"].grad, a["grad_bm"], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(a["pred_start"].grad, a["grad_start"], atol=1e-5, rtol=1e-4)


def test_golden_post_processing() -> None:
    cases, file = golden()
    for case in cases["post_processing"]:
        a, length = tensors(file, case["name"]), case["T"]
        maps = {"pred_bm": a["confidence_map"], "pred_start": a["start"], "pred_end": a["end"]}
        made = output({name: value[None] for name, value in maps.items()})
        score, inside = proposal_scores(made, torch.ones(1, length, dtype=torch.bool), BmnTrain())
        start, end = (edge[inside[0]].numpy() for edge in (made.first, made.last + 1))
        assert len(start) == case["n_candidates"]
        np.testing.assert_allclose(start / length, a["candidates"][:, 0], atol=1e-12)
        np.testing.assert_allclose(end / length, a["candidates"][:, 1], atol=1e-12)
        np.testing.assert_allclose(score[inside], a["candidates"][:, 6], rtol=1e-5)
        frames = case["duration_frame"]
        seconds = frames // 16 * 16 / frames * case["duration_second"]
        nms = case["soft_nms"]
        arrays = {
            "start_t": start, "end_t": end, "score": a["candidates"][:, 6].numpy(),
            "video": np.array([0.1, 1.0]), "length_t": np.array(length),
        }  # fmt: skip
        found = decode(
            Scores(id="a", arrays=arrays), Grid(stride_s=seconds / length), seconds,
            BmnDecode(
                nms_alpha=nms["alpha"], nms_low=nms["low"], nms_high=nms["high"], video_classes=1
            ),
        )  # fmt: skip
        want = case["proposals"]
        edges = np.array([p["segment"] for p in want])
        np.testing.assert_allclose(found.start_s, edges[:, 0], atol=1e-6)
        np.testing.assert_allclose(found.end_s, edges[:, 1], atol=1e-6)
        np.testing.assert_allclose(found.score, [p["score"] for p in want], rtol=1e-6)
        assert (found.label == 1).all()


SMALL = BmnTrain(base_dim=8, sample_dim=6, map_dim=4, num_sample=3, per_bin=2, tnd=True, joint=True)
BOTH = AplBmnTrain(**asdict(SMALL))


def batch(features: list[torch.Tensor]) -> Batch:
    length = max(len(f) for f in features)
    padded = [torch.nn.functional.pad(f, (0, 0, 0, length - len(f))) for f in features]
    rows = len(features)
    none = torch.full((rows, 1), -1)
    return Batch(
        ids=tuple(f"v{k}" for k in range(rows)),
        features=torch.stack(padded),
        mask=torch.arange(length)[None] < torch.tensor([[len(f)] for f in features]),
        point_t=none, point_label=torch.zeros(rows, 1, 3), pair_t=none, pair_class=none,
        most_pairs=0, crop_t=torch.zeros(rows, dtype=torch.long),
    )  # fmt: skip


def small(hp: BmnTrain = SMALL) -> Bmn:
    torch.manual_seed(0)
    return Bmn(8, 3, hp).eval()


@pytest.mark.parametrize("window", [0, 8])
def test_scores_of_a_video_do_not_depend_on_the_batch(window: int) -> None:
    hp, model = replace(SMALL, window=window, longest=6), small(replace(SMALL, longest=6))
    given = [torch.randn(n, 8) for n in (21, 7, 8, 3)]
    with torch.no_grad():
        together = scores(model, batch(given), hp)
        for one, found in zip(given, together, strict=True):
            alone = scores(model, batch([one]), hp)[0]
            for name, value in alone.arrays.items():
                np.testing.assert_allclose(found.arrays[name], value, atol=1e-6)
            assert (found.arrays["end_t"] < len(one)).all()
            assert (found.arrays["end_t"] - found.arrays["start_t"] <= 6).all()


def test_windows_are_scored_as_videos_of_their_own() -> None:
    assert window_starts(20, 8) == [0, 4, 8, 12]
    assert window_starts(13, 8) == [0, 4, 5]
    assert window_starts(8, 8) == window_starts(3, 8) == [0]
    hp, model, video = replace(SMALL, window=8), small(), torch.randn(12, 8)
    with torch.no_grad():
        found = scores(model, batch([video]), hp)[0].arrays
        parts = scores(model, batch([video[:8], video[4:]]), hp)
    for name, shift in (("start_t", 4), ("end_t", 4), ("score", 0)):
        own = [part.arrays[name] for part in parts]
        want = np.concatenate([own[0], own[1] + shift])
        np.testing.assert_allclose(found[name], want, atol=1e-6)


def teaching(rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(rows, 4, generator=generator) * 8
    label = torch.randint(-1, 3, (rows, 4), generator=generator)
    end = start + 1 + 5 * torch.rand(rows, 4, generator=generator)
    return {"start_t": start, "end_t": end, "label": label}


@pytest.mark.parametrize("joint", [False, True])
def test_padding_and_untaught_videos_change_no_loss(joint: bool) -> None:
    hp = replace(BOTH, joint=joint)
    model, given = small(hp), [torch.randn(12, 8), torch.randn(12, 8), torch.randn(16, 8)]
    segments = teaching(3)
    draw = torch.ones(3, 2, 16 * 17 // 2)  # the regression takes all or none
    several = batch(given)
    made = model(several.features, several.mask)
    unlabelled = Unlabelled(videos=torch.tensor([False, False, True]), weight=0.0)
    found = losses(made, segments, several.mask, hp, draw, STEP, unlabelled)
    two = batch(given[:2])
    made = model(two.features, two.mask)
    own = {name: value[:2] for name, value in segments.items()}
    want = losses(made, own, two.mask, hp, draw[:2, :, : 12 * 13 // 2], STEP)
    assert set(found) == {"boundary", "regression", "classification", "video", "tnd"}
    for name, value in want.items():
        assert value > 0
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


def test_ignored_instances_are_no_background() -> None:
    model, given = small(BOTH), batch([torch.randn(12, 8)])
    edges = {"start_t": torch.tensor([[1.0, 6.0]]), "end_t": torch.tensor([[4.0, 10.0]])}
    taught = targets(
        edges | {"label": torch.tensor([[0, 2]]), "ignored": torch.tensor([[False, True]])},
        given.mask, BOTH.longest, 3,
    )  # fmt: skip
    first, last = cells(12)
    near = (first == 6) & (last == 9)
    assert taught.open_cell[0, near].all() and taught.maps.iou[0, near].item() == 0
    assert not taught.open_cell[0, (first == 1) & (last == 3)].any()
    assert taught.open_class.tolist() == [[False, False, True]]
    assert taught.open_start[0].nonzero()[:, 0].tolist() == [5, 6, 7]
    made = model(given.features, given.mask)
    draw = torch.ones(1, 2, 12 * 13 // 2)

    def gradients(segments: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        terms = losses(made, segments, given.mask, BOTH, draw, STEP)
        total = torch.stack(list(terms.values())).sum()
        return torch.autograd.grad(total, [made.maps, made.start, made.video], retain_graph=True)

    label = torch.tensor([[0, 2]])
    ignored = gradients(edges | {"label": label, "ignored": torch.tensor([[False, True]])})
    absent = gradients(edges | {"label": torch.tensor([[0, -1]])})
    for value in (ignored[0][0, :, near], ignored[1][0, 5:8], ignored[2][0, 2]):
        assert (value == 0).all()
    assert (absent[0][0, 1, near] != 0).all() and (absent[1][0, 5:8] != 0).all()
    assert absent[2][0, 2] != 0


class Shared(Step):
    """Steps of two workers that are threads, each of which has half of a batch."""

    barrier, given = threading.Barrier(2), [torch.zeros(0), torch.zeros(0)]

    def mean_over_workers(self, count: torch.Tensor) -> torch.Tensor:
        self.given[self.rank] = count.detach()
        self.barrier.wait()
        mean = (self.given[0] + self.given[1]) / 2
        self.barrier.wait()
        return mean


def test_two_workers_have_the_gradient_of_one() -> None:
    segments, draw = teaching(4), torch.rand(4, 2, 55)
    whole, model = batch([torch.randn(10, 8) for _ in range(4)]), small()

    def gradient(rows: slice, step: Step) -> list[torch.Tensor]:
        mask = whole.mask[rows]
        own = {name: value[rows] for name, value in segments.items()}
        terms = losses(
            model(whole.features[rows], mask), own, mask, BOTH, draw[rows], step,
            Unlabelled(videos=torch.tensor([True, False, False, True])[rows], weight=2.0),
        )  # fmt: skip
        total = torch.stack(list(terms.values())).sum()
        return list(torch.autograd.grad(total, list(model.parameters())))

    want = gradient(slice(4), STEP)
    steps = [
        Shared(index=0, epoch=0.0, generator=STEP.generator, rank=rank, world_size=2)
        for rank in range(2)
    ]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(gradient, (slice(2), slice(2, 4)), steps)
    for a, b, both in zip(first, second, want, strict=True):
        torch.testing.assert_close((a + b) / 2, both, atol=1e-5, rtol=1e-4)


def test_half_precision_trains() -> None:
    model, given = small(), batch([torch.randn(10, 8)])
    with torch.autocast("cpu", torch.bfloat16):
        made = model(given.features, given.mask)
        terms = losses(made, teaching(1), given.mask, SMALL, torch.rand(1, 2, 55), STEP)
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, value in model.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), name


def test_a_batch_without_instances_teaches_only_the_classes_of_videos() -> None:
    model, given = small(), batch([torch.randn(10, 8)])
    segments = {name: torch.zeros(1, 0) for name in ("start_t", "end_t")}
    made = model(given.features, given.mask)
    terms = losses(
        made, segments | {"label": torch.zeros(1, 0, dtype=torch.long)}, given.mask, SMALL,
        torch.rand(1, 2, 55), STEP,
    )  # fmt: skip
    assert {name for name, value in terms.items() if value != 0} == {"video"}
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_tnd_is_the_distance_to_the_instance_of_most_overlap() -> None:
    start, end = torch.tensor([[0.0, 6.0]]), torch.tensor([[4.0, 8.0]])
    label, length = torch.tensor([[0, 1]]), torch.tensor([8])
    made = label_maps(start, end, label, length, 8)
    first, last = cells(8)
    at = {(int(i), int(j)): k for k, (i, j) in enumerate(zip(first, last, strict=True))}
    assert made.tnd[0, at[0, 3]] == 0 and made.iou[0, at[0, 3]] == 1
    assert made.tnd[0, at[1, 4]].item() == pytest.approx((1 / 5) ** 2)
    assert made.tnd[0, at[5, 7]].item() == pytest.approx((0.5 / 3) ** 2)


def test_the_joint_score_takes_the_distance_off_the_overlap() -> None:
    made = small()(torch.randn(1, 9, 8), torch.ones(1, 9, dtype=torch.bool))
    score, inside = proposal_scores(made, torch.ones(1, 9, dtype=torch.bool), SMALL)
    regressed, classified, tnd = made.maps[0]
    for k, (i, j) in enumerate(zip(made.first.tolist(), made.last.tolist(), strict=True)):
        assert inside[0, k] == (j + 1 < 9)
        if j + 1 < 9:
            want = made.start[0, i] * made.end[0, j + 1] * classified[k]
            want = want * (regressed[k] - tnd[k]).clamp(min=1e-3)
            torch.testing.assert_close(score[0, k], want)


def test_detections_lie_in_the_video_by_score_with_its_classes() -> None:
    arrays = {
        "start_t": np.array([0, 2, 5]), "end_t": np.array([4, 9, 7]),
        "score": np.array([0.9, 0.8, 0.1]), "video": np.array([0.2, 0.9, 0.6]),
        "length_t": np.array(10),
    }  # fmt: skip
    made = decode(Scores(id="a", arrays=arrays), Grid(stride_s=2.0), 15.0, BmnDecode())
    assert made.label.tolist() == [1, 1, 2, 2]
    assert made.end_s.tolist() == [8.0, 15.0, 8.0, 15.0]
    assert made.score.tolist() == pytest.approx([0.81, 0.72, 0.54, 0.48])


def test_sizes_that_do_not_fit_are_named(tmp_path: Any) -> None:
    store = FeatureStore.open(make_store(tmp_path / "store", train=2, test=1))
    assert isinstance(build(store, SMALL), Bmn)
    for wrong in (
        {"base_dim": 10}, {"resample_to": 0}, {"window": 64, "max_snippets": 100}, {"tnd": False}
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            build(store, replace(SMALL, **wrong))
