"""POTLoc against its released code (golden cases), and what must hold of any of its inputs."""

from __future__ import annotations

import dataclasses
import json
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import golden_names, shared

from ptal_ray.data.sampling import first_place
from ptal_ray.data.types import Grid, Points, Scores, Segments
from ptal_ray.methods.potloc import base
from ptal_ray.methods.potloc.decode import decode
from ptal_ray.methods.potloc.labels import pseudo_labels
from ptal_ray.methods.potloc.loss import cropped, level_losses, mined_background, targets
from ptal_ray.methods.potloc.model import Potloc
from ptal_ray.methods.potloc.params import BaseTrain, PotlocDecode, PotlocTrain, base_decode
from ptal_ray.ops import mil
from ptal_ray.ops.point_losses import snippet_losses
from ptal_ray.ops.pyramid import local_attention
from ptal_ray.ops.score_runs import score_arrays
from ptal_ray.ops.seeds import mine_background
from ptal_ray.training.optim import learning_rate

SECONDS = 16 / 25  # of a snippet in the golden cases


def arrays(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    folder = shared("golden/potloc_model")
    cases = json.loads((folder / "cases.json").read_text())
    with np.load(folder / "cases.npz") as file:
        found = {
            k.partition("/")[2]: torch.from_numpy(file[k])
            for k in file.files
            if k.partition("/")[0] == name
        }
    return cases, found


def columns(
    table: dict[str, list[Any]], proposals: dict[str, list[Any]]
) -> tuple[list[Points], list[Segments], list[str], list[list[int]]]:
    """Points and proposals of each video, by time; and the order of the points in the file."""
    names = sorted({name for rows in table.values() for name, _ in rows})
    points, orders, offered = [], [], []
    for video, rows in table.items():
        time_s = np.array([t for _, t in rows], float)
        order = np.argsort(time_s, kind="stable")
        label = np.array([names.index(n) for n, _ in rows], np.int64)
        points.append(Points(time_s=time_s[order], label=label[order]))
        orders.append([int(k) for k in order])
        own = [p for p in proposals.get(video, []) if p["label"] in names]
        edges = np.array([p["segment"] for p in own], float).reshape(-1, 2)
        offered.append(
            Segments(
                start_s=edges[:, 0], end_s=edges[:, 1],
                label=np.array([names.index(p["label"]) for p in own], np.int64),
                score=np.array([p["score"] for p in own], float),
            )
        )  # fmt: skip
    return points, offered, names, orders


def check_labels(
    table: dict[str, Any], proposals: dict[str, Any], expected: dict[str, Any], split: str
) -> int:
    points, offered, names, orders = columns(table, proposals)
    made = pseudo_labels(points, offered, len(names), split)
    at = number = 0
    for video, order in zip(table, orders, strict=True):
        for place, k in enumerate(order):
            stated = [e for e in expected[video] if [e["label"], e["point"]] == table[video][k]]
            got = (made.start_s[at + place], made.end_s[at + place], made.score[at + place])
            if not stated:  # Algorithm 1 leaves points without any proposal open
                assert got[2] == 0
                continue
            (want,), number = stated, number + 1
            assert got == pytest.approx((*want["segment"], want["score"]), abs=1e-9), (video, k)
        at += len(order)
    return number


@pytest.mark.parametrize("split", ["midpoint", "paper"])
def test_labels_of_all_of_thumos(split: str) -> None:
    folder = shared("golden/potloc_pl")
    name = "PL_dict_from_reference" if split == "midpoint" else "PL_dict_paper_algorithm1_literal"
    expected, table, proposals = (
        json.loads((folder / f"{n}.json").read_text())
        for n in (name, "thumos_point_dict", "base_proposals")
    )
    number = check_labels(table, proposals["results"], expected["results"], split)
    assert number == (3003 if split == "midpoint" else 3003 - 6)


def test_labels_of_small_cases() -> None:
    cases = json.loads(shared("golden/potloc_pl/small_cases.json").read_text())["cases"]
    for case in cases:
        if "pseudo_labels" in case:
            check_labels(case["points"], case["proposals"], case["pseudo_labels"], "midpoint")


def test_background_of_both_models() -> None:
    cases, _ = arrays("")
    for case in cases["pseudo_background"]:
        _, a = arrays(case["name"])
        background = a["cas_sigmoid_fuse"][None, :, -1]
        positive = a["point_anno"].bool().any(dim=1)[None]
        mask, point_t = torch.ones_like(positive), positive[0].nonzero().T
        found = mine_background(background, mask, point_t, 0.95)
        assert torch.equal(found[0], a["bkg_base"].bool())
        assert torch.equal(
            mined_background(background, mask, positive, 0.95)[0], a["bkg_main"].bool()
        )


def test_losses_of_the_base_model() -> None:
    cases, _ = arrays("")
    for case in cases["base_loss"]:
        _, a = arrays(case["name"])
        score = a["cas_sigmoid_fuse"][None].requires_grad_()
        video = a["vid_score"][None].requires_grad_()
        point_t = a["point_anno"].any(dim=1).nonzero().T
        label = a["point_anno"][point_t[0]][None].float()
        assert torch.equal(label.amax(dim=1), a["label"][None])
        mask, hp = torch.ones(score.shape[:2], dtype=torch.bool), BaseTrain()
        terms = snippet_losses(
            score, video, mask, point_t, label,
            gamma=hp.focal_gamma, threshold=hp.background_threshold,
        )  # fmt: skip
        want = case["losses"]
        assert terms["video"].item() == pytest.approx(want["loss_vid"], abs=1e-6)
        assert terms["point"].item() == pytest.approx(want["loss_frame"], abs=1e-6)
        assert terms["background"].item() == pytest.approx(want["loss_frame_bkg"], abs=1e-6)
        total = terms["video"].sum() + 0.5 * terms["point"].sum() + terms["background"].sum()
        assert total.item() == pytest.approx(want["loss_total"], abs=1e-6)
        total.backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(score.grad, a["grad_cas"], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(video.grad, a["grad_vid"], atol=1e-6, rtol=1e-4)


def parameters(case: dict[str, Any]) -> PotlocTrain:
    model = case["model"]
    return PotlocTrain(
        width=model["embd_dim"], heads=model["n_head"], window=model["n_mha_win_size"],
        levels=model["fpn_levels"], radius=case["train_cfg"]["sample_radius"],
        r_act=case["dataset"]["r_act"], reference_faults=True, drop_path=0.0,
    )  # fmt: skip


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The released code's state as one of `Potloc`."""
    parts = ("query", "key", "value")
    made = {}
    for old, value in state.items():
        words = old.split(".")
        if words[0] == "backbone" and words[1].startswith("embd"):
            kind = "convs" if words[1] == "embd" else "norms"
            name = f"pyramid.embedding.{kind}.{'.'.join(words[2:])}"
        elif words[0] == "backbone":
            block = int(words[2]) + (2 if words[1] == "branch" else 0)
            rest = words[3:]
            if rest[0] in ("ln1", "ln2"):
                name = f"norm{rest[0][2]}.{rest[1]}"
            elif rest[0].startswith("drop_path"):
                name = "scale1" if rest[0].endswith("attn") else "scale2"
            elif rest[0] == "mlp":
                name = f"feed_forward.{0 if rest[1] == '0' else 2}.{rest[2]}"
            elif rest[1] == "proj":
                name = f"attention.output.{rest[2]}"
            else:
                part, _, kind = rest[1].partition("_")
                place = {"": "inputs", "conv": "convs", "norm": "norms"}[kind]
                name = f"attention.{place}.{parts.index(part)}.{'.'.join(rest[2:])}"
            name = f"pyramid.blocks.{block}.{name}"
        elif words[0] == "neck":
            name = f"pyramid.norms.{words[2]}.{words[3]}"
        elif words[1] in ("head", "norm"):
            kind = "convs" if words[1] == "head" else "norms"
            name = f"head.layers.{kind}.{'.'.join(words[2:])}"
        else:
            name = f"head.scores.{'.'.join(words[2:])}"
        made[name] = value.squeeze() if "conv" not in name else value
    return made


MAIN = golden_names("potloc_model/cases.json", "main_model")


def main_case(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], Potloc]:
    cases, a = arrays(name)
    case = next(c for c in cases["main_model"] if c["name"] == name)
    hp = parameters(case)
    model = Potloc(case["dataset"]["input_dim"], case["dataset"]["num_classes"], hp)
    model.load_state_dict(
        renamed({k.removeprefix("state/"): v for k, v in a.items() if k.startswith("state/")})
    )
    return case, a, model


def videos(a: dict[str, torch.Tensor], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    feats = [a["video0/feats"].T, a["video1/feats"].T]
    features = torch.stack([torch.nn.functional.pad(f, (0, 0, 0, length - len(f))) for f in feats])
    size = torch.tensor([[len(f)] for f in feats])
    return features, torch.arange(length)[None] < size


def segments(a: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    most = max(len(a[f"video{k}/final_points"]) for k in (0, 1))
    made: dict[str, list[torch.Tensor]] = {"point_t": [], "start_t": [], "end_t": [], "label": []}
    for k in (0, 1):
        edges = a[f"video{k}/final_proposals"].double()
        found = (
            a[f"video{k}/final_points"].double(), edges[:, 0], edges[:, 1],
            a[f"video{k}/final_labels"],
        )  # fmt: skip
        for name, value in zip(made, found, strict=True):
            made[name].append(torch.nn.functional.pad(value, (0, most - len(value)), value=-1))
    return {name: torch.stack(rows) for name, rows in made.items()}


@pytest.mark.parametrize("name", MAIN)
def test_main_model_scores_targets_losses_and_gradient(name: str) -> None:
    case, a, model = main_case(name)
    hp, length = parameters(case), case["dataset"]["max_seq_len"]
    features, mask = videos(a, length)
    scores, masks = model(features, mask)
    for level, score in enumerate(scores):
        want = a[f"train_sigmoid/{level}"] * masks[level][..., None]
        torch.testing.assert_close(score, want, atol=1e-5, rtol=1e-4)
    teaching = segments(a)
    found = targets(teaching, [m.shape[1] for m in masks], case["dataset"]["num_classes"], hp)
    for k in (0, 1):
        valid = torch.cat(masks, dim=1)[k][:, None]
        assert torch.equal((found[k] & valid).float(), a[f"video{k}/gt_cls"] * valid)
    label = torch.stack([a[f"video{k}/label_np_arr"] for k in (0, 1)])
    terms = level_losses(scores, masks, teaching, label, hp)
    want = case["losses"]
    assert terms["video"].item() == pytest.approx(want["loss_vid"], abs=1e-5)
    assert terms["action"].item() == pytest.approx(0.5 * want["loss_frame"], abs=1e-5)
    assert terms["background"].item() == pytest.approx(want["loss_bg"], abs=1e-5)
    total = torch.stack(list(terms.values())).sum()
    assert total.item() == pytest.approx(want["final_loss"], abs=1e-5)
    total.backward()  # type: ignore[no-untyped-call]
    squares = sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None)
    assert float(squares) ** 0.5 == pytest.approx(case["grad_l2"], rel=1e-3)


@pytest.mark.parametrize("name", MAIN)
def test_main_model_detections(name: str) -> None:
    case, a, model = main_case(name)
    model.eval()
    features, mask = videos(a, case["dataset"]["max_seq_len"])
    with torch.no_grad():
        levels, masks = model(features[:1], mask[:1])
    arrays_: dict[str, Any] = {}
    for level, (score, own) in enumerate(zip(levels, masks, strict=True)):
        torch.testing.assert_close(score, a[f"eval_sigmoid/{level}"], atol=1e-5, rtol=1e-4)
        video = mil.video_scores(score[..., :-1], own, case["dataset"]["r_act"])
        made = score_arrays(mil.fuse(score), video, [own.shape[1]])[0]
        arrays_ |= {f"{k}{level}": v for k, v in made.items()}
    rule = case["inference"]
    low, high = rule["act_thresh_cas"], rule["act_thresh_agnostic"]
    hp = PotlocDecode(
        class_threshold=rule["class_thresh"], nms_tiou=rule["nms_thresh"],
        scale=rule["temp_scale"], outer_ratio=rule["_lambda"], video_weight=rule["gamma"],
        score_start=low[0], score_step=low[1] - low[0], score_stop=low[-1] + 1e-6,
        action_start=high[0], action_step=high[1] - high[0], action_stop=high[-1] + 1e-6,
        nms_plus_one_second=True,
    )  # fmt: skip
    found = decode(
        Scores(id="v", arrays=arrays_), Grid(stride_s=SECONDS), len(features[0]) * SECONDS, hp
    )
    order = np.lexsort((-found.score, found.label))
    found, want = found.take(order), case["proposals_video0"]
    assert [f"c{k}" for k in found.label] == [p["label"] for p in want]
    assert len(found) == case["n_proposals"]
    np.testing.assert_allclose(found.score, [p["score"] for p in want], atol=1e-5)
    np.testing.assert_allclose(
        np.stack([found.start_s, found.end_s], 1), [p["segment"] for p in want], atol=1e-6
    )


def test_label_sampling() -> None:
    cases, _ = arrays("")
    for case in cases["label_sampling"]:
        edges = torch.tensor(case["proposals"]).double()
        teaching = {
            "point_t": torch.tensor([case["points"]]).double(),
            "start_t": edges[None, :, 0], "end_t": edges[None, :, 1],
            "label": torch.tensor([case["labels"]]),
        }  # fmt: skip
        sizes = [case["T"] // stride for stride in case["strides"]]
        hp = PotlocTrain(radius=case["radius"])
        found = targets(teaching, sizes, max(case["labels"]) + 1, hp)[0]
        assert found.nonzero().tolist() == sorted(case["positives"])


def test_a_point_in_the_last_snippet_keeps_its_label() -> None:
    pseudo = {
        "point_t": torch.tensor([[9.6, 10.2]]), "start_t": torch.tensor([[7.0, 7.0]]),
        "end_t": torch.tensor([[10.0, 10.6]]), "label": torch.tensor([[0, 1]]),
    }  # fmt: skip
    found = cropped(pseudo, torch.tensor([0]), torch.tensor([10]))
    assert (found["label"].tolist(), found["point_t"][0, 0]) == ([[0, -1]], 9)


def test_crops() -> None:
    cases, _ = arrays("")
    for case in cases["truncate_feats"]:
        length, shortest, most = case["T"], 0.9, case.get("max_seq_len", 768)
        draws = random.Random(case["python_random_seed"])
        size = most
        if length <= most:
            low, high = max(round(shortest * length), 1), round(length)
            size = draws.randint(low, high)
        edges = torch.tensor(case["proposals_s"]).double() / SECONDS
        point = torch.tensor([case["points_s"]]).double() / SECONDS
        places = np.array([[draws.randint(0, length - size) for _ in range(500)]])
        start = first_place(places, np.array([size]), point.numpy(), 0.7)
        assert (start[0], size) == (case["start"], case["length"])
        pseudo = {
            "point_t": point, "start_t": edges[None, :, 0], "end_t": edges[None, :, 1],
            "label": torch.arange(len(edges))[None],
        }  # fmt: skip
        found = cropped(pseudo, torch.from_numpy(start), torch.tensor([size]))
        inside = found["label"][0] >= 0
        assert found["label"][0][inside].tolist() == case["labels"]
        assert found["point_t"][0][inside].tolist() == case["points"]
        made = torch.stack([found["start_t"][0], found["end_t"][0]], 1)[inside]
        assert made.tolist() == case["proposals"]


def test_learning_rate() -> None:
    case = json.loads(shared("golden/actionformer/lr_schedule.json").read_text())
    steps = case["max_steps"]
    hp = SimpleNamespace(lr=case["base_lr"], warmup=case["warmup_steps"] / steps, cosine=True)
    made = [learning_rate(hp, step, steps) for step in range(len(case["lr_used_at_step"]))]
    np.testing.assert_allclose(made, case["lr_used_at_step"], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("length", [1, 5, 16, 33, 70])
@pytest.mark.parametrize("reach", [1, 3, 9, 50_000])  # the last is the greatest window allowed
def test_local_attention_is_attention_under_a_band(length: int, reach: int) -> None:
    draw = torch.Generator().manual_seed(length * 100 + reach)
    query, key, value = (torch.randn(2, length, 3, 4, generator=draw) for _ in range(3))
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[1, length // 2 + 1 :] = False
    made = local_attention(query, key, value, mask, reach)
    t = torch.arange(length)
    band = ((t[:, None] - t[None]).abs() <= reach) & mask[:, None] | (t[:, None] == t[None])
    weight = torch.einsum("bqhc,bkhc->bhqk", query, key) / 2
    weight = weight.masked_fill(~band[:, None], -torch.inf).softmax(dim=3)
    want = torch.einsum("bhqk,bkhc->bqhc", weight, value)
    torch.testing.assert_close(made, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("split", ["midpoint", "paper"])
def test_points_without_any_proposal_get_a_second_around_them(split: str) -> None:
    points = [Points(time_s=np.array([0.2, 7.0]), label=np.array([0, 1]))]
    made = pseudo_labels(points, [Segments.empty()], 2, split)
    assert made.start_s.tolist() == [0.0, 6.5] and made.end_s.tolist() == [0.7, 7.5]
    assert made.score.tolist() == [0, 0]


def test_computing_again_changes_no_gradient() -> None:
    torch.manual_seed(0)
    hp = PotlocTrain(width=16, heads=2, levels=2, window=5, recompute=False)
    kept = Potloc(8, 3, hp)
    again = Potloc(8, 3, dataclasses.replace(hp, recompute=True))
    again.load_state_dict(kept.state_dict())
    features = torch.randn(3, 2048, 8)  # two videos at a time, then one
    mask = torch.ones(3, 2048, dtype=torch.bool)
    mask[1, 1500:] = False
    features = features * mask[..., None]
    grads = []
    for model in (kept, again):
        scores, _ = model(features, mask)
        total = torch.stack([(s * s).sum() for s in scores]).sum()
        grads.append(torch.autograd.grad(total, list(model.parameters())))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_proposals_of_the_base_model_may_count_one_second_more() -> None:
    score = np.full((40, 1), 0.02, np.float32)
    score[4:8], score[10:14] = 0.9, 0.8
    action = score[:, 0].copy()
    found = Scores(id="v", arrays={"video": np.ones(1), "score": score, "action": action})
    numbers = []
    for more in (False, True):
        hp = base_decode(PotlocTrain(pseudo_plus_one_second=more, pseudo_nms_tiou=0.05))
        assert hp.nms_plus_one_second == more
        numbers.append(len(base.decode(found, Grid(stride_s=0.1), 4.0, hp)))
    assert numbers[0] > numbers[1]  # of 0.4 s and 0.2 s apart, they touch with one second more
