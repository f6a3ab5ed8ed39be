"""ActionFormer against its released code (golden cases)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import reference_actionformer as reference
import torch
from conftest import golden_names, shared
from torch.nn import functional as F

from ptal_ray.data.types import Grid, Scores
from ptal_ray.methods.apl.actionformer_decode import candidates, decode, suppressed
from ptal_ray.methods.apl.actionformer_losses import (
    detection_losses,
    giou_loss,
    regression_loss,
    sigmoid_focal,
)
from ptal_ray.methods.apl.actionformer_network import ActionFormer
from ptal_ray.methods.apl.actionformer_params import ActionFormerDecode, ActionFormerTrain
from ptal_ray.methods.apl.actionformer_targets import level_points, targets
from ptal_ray.methods.apl.instances import cropped
from ptal_ray.methods.method import Step

CASES = golden_names("actionformer/tiny_model.json")


def golden(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    folder = shared("golden/actionformer")
    cases = json.loads((folder / "tiny_model.json").read_text())["cases"]
    case = next(c for c in cases if c["name"] == name)
    with np.load(folder / "tiny_model.npz") as file:
        found = {
            k.partition("/")[2]: torch.from_numpy(file[k])
            for k in file.files
            if k.partition("/")[0] == name
        }
    return case, found


def parameters(config: dict[str, Any]) -> ActionFormerTrain:
    training = config["train_cfg"]
    window = config["n_mha_win_size"]
    return ActionFormerTrain(
        width=config["embd_dim"], heads=config["n_head"], levels=config["backbone_arch"][2],
        stem=config["backbone_arch"][1],
        window=window if window > 0 else 2 * config["max_seq_len"] + 1, drop_path=0.0,
        first_range=config["regression_range"][0][1],
        center_radius=training["center_sample_radius"], regression_weight=training["loss_weight"],
        label_smoothing=training["label_smoothing"], first_positives=training["init_loss_norm"],
    )  # fmt: skip


BLOCK = {
    "ln1": "norm1", "ln2": "norm2", "mlp.0": "feed_forward.0", "mlp.3": "feed_forward.2",
    "attn.query_conv.conv": "attention.convs.0.conv",
    "attn.key_conv.conv": "attention.convs.1.conv",
    "attn.value_conv.conv": "attention.convs.2.conv", "attn.query_norm": "attention.norms.0",
    "attn.key_norm": "attention.norms.1", "attn.value_norm": "attention.norms.2",
    "attn.query": "attention.inputs.0", "attn.key": "attention.inputs.1",
    "attn.value": "attention.inputs.2", "attn.proj": "attention.output",
}  # fmt: skip


def own_name(name: str, stem: int) -> str:
    """The reference's name of a weight as ours."""
    head, _, last = name.rpartition(".")
    parts = head.split(".")
    if parts[0] == "backbone" and parts[1] in ("stem", "branch"):
        place = int(parts[2]) + (stem if parts[1] == "branch" else 0)
        inner = BLOCK[".".join(parts[3:])]
        return f"pyramid.blocks.{place}.{inner}.{last}"
    if parts[0] == "backbone":
        kind = "convs" if parts[1] == "embd" else "norms"
        rest = f"{parts[2]}.conv" if kind == "convs" else parts[2]
        return f"pyramid.embedding.{kind}.{rest}.{last}"
    if parts[0] == "neck":
        return f"pyramid.norms.{parts[2]}.{last}"
    tower = {"cls_head": "class", "reg_head": "edge"}[parts[0]]
    if parts[1] == "scale":
        return f"edge_scale.{parts[2]}"
    if parts[1] in ("head", "norm"):
        kind = "convs" if parts[1] == "head" else "norms"
        rest = f"{parts[2]}.conv" if kind == "convs" else parts[2]
        return f"{tower}_tower.{kind}.{rest}.{last}"
    return f"{tower}_head.conv.{last}"


def model_of(case: dict[str, Any], a: dict[str, torch.Tensor]) -> ActionFormer:
    config = case["model_config"]
    model = ActionFormer(config["input_dim"], config["num_classes"], parameters(config))
    own = model.state_dict()
    for name in own:  # the released code scales branches only where it drops paths
        if name.endswith((".scale1", ".scale2")):
            own[name] = torch.ones_like(own[name])
    scales = {}
    for name, value in a.items():
        if not name.startswith("state/") or "rel_pe" in name:
            continue
        mine = own_name(name.removeprefix("state/"), config["backbone_arch"][1])
        if mine.startswith("edge_scale."):
            scales[int(mine.rpartition(".")[2])] = value
        elif mine in own:
            own[mine] = value.reshape(own[mine].shape)
        else:
            raise KeyError(f"{name} -> {mine}")
    own["edge_scale"] = torch.stack([scales[k].reshape(()) for k in sorted(scales)])
    model.load_state_dict(own)
    return model


def videos(a: dict[str, torch.Tensor], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    feats = [a["video0/feats"].T, a["video1/feats"].T]
    features = torch.stack([F.pad(f, (0, 0, 0, length - len(f))) for f in feats])
    size = torch.tensor([[len(f)] for f in feats])
    return features, torch.arange(length)[None] < size


def instances(a: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    most = max(len(a[f"video{k}/labels"]) for k in (0, 1))
    rows = [
        (a[f"video{k}/segments"][:, 0], a[f"video{k}/segments"][:, 1], a[f"video{k}/labels"])
        for k in (0, 1)
    ]
    padded = [[F.pad(v, (0, most - len(v)), value=-1) for v in row] for row in rows]
    start, end, label = (torch.stack(column) for column in zip(*padded, strict=True))
    free = torch.zeros_like(label, dtype=torch.bool)
    return {"start_t": start, "end_t": end, "label": label, "ignored": free}


def step() -> Step:
    return Step(index=0, epoch=0.0, generator=torch.Generator())


@pytest.mark.parametrize("name", CASES)
def test_losses_gradient_and_normaliser(name: str) -> None:
    case, a = golden(name)
    model = model_of(case, a)
    scaled = sum(p.numel() for n, p in model.named_parameters() if ".scale" in n)
    assert sum(p.numel() for p in model.parameters()) - scaled == case["n_params"]
    hp = parameters(case["model_config"])
    features, mask = videos(a, case["model_config"]["max_seq_len"])
    output = model(features, mask)
    classes = case["model_config"]["num_classes"]
    found = targets(instances(a), output.sizes, classes, hp.first_range, hp.center_radius)
    for k in (0, 1):
        torch.testing.assert_close(found.label[k], a[f"video{k}/gt_cls"])
        taught = found.positive[k]
        torch.testing.assert_close(found.edges[k][taught], a[f"video{k}/gt_offsets"][taught])
    terms = detection_losses(model, output, found, hp, step())
    want = case["losses"]
    assert terms["class"].item() == pytest.approx(want["cls_loss"], rel=1e-4)
    assert terms["edges"].item() == pytest.approx(hp.regression_weight * want["reg_loss"], rel=1e-4)
    total = terms["class"] + terms["edges"]
    assert total.item() == pytest.approx(want["final_loss"], rel=1e-4)
    assert model.positives[0].item() == pytest.approx(case["loss_normalizer_after"], rel=1e-5)
    total.backward()  # type: ignore[no-untyped-call]
    squares = sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None)
    assert float(squares) ** 0.5 == pytest.approx(case["grad_l2"], rel=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_positions_outputs_and_detections(name: str) -> None:
    case, a = golden(name)
    config = case["model_config"]
    model = model_of(case, a)
    hp = parameters(config)
    model.eval()
    features, mask = videos(a, config["max_seq_len"])
    with torch.no_grad():
        output = model(features[:1], mask[:1])
    points = torch.stack(level_points(output.sizes, hp.first_range, mask.device), dim=1)
    torch.testing.assert_close(points[:, [0, 2, 3, 1]], a["points"])
    arrays = {}
    at = 0
    for level, size in enumerate(output.sizes):
        logit, edges = output.logit[0, at : at + size], output.edges[0, at : at + size]
        at += size
        torch.testing.assert_close(logit.T, a[f"eval_cls_logits/{level}"][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(edges.T, a[f"eval_offsets/{level}"][0], atol=1e-5, rtol=1e-4)
        arrays[f"score{level}"] = torch.sigmoid(logit).numpy()
        arrays[f"edges{level}"] = (edges * 2**level).numpy()
    rule = config["test_cfg"]
    hp_decode = ActionFormerDecode(
        score_floor=rule["pre_nms_thresh"], candidates=rule["pre_nms_topk"],
        shortest_t=rule["duration_thresh"], soft=rule["nms_method"] == "soft",
        sigma=rule["nms_sigma"], nms_tiou=rule["iou_threshold"], min_score=rule["min_score"],
        voting_tiou=rule["voting_thresh"], multiclass=rule["multiclass_nms"],
        most=rule["max_seg_num"],
    )  # fmt: skip
    grid = Grid(stride_s=1.0, offset_s=-0.5)
    before = candidates(Scores(id="v", arrays=arrays), grid, hp_decode)
    close(before, a, "decoded_before_nms")
    frames = Grid(stride_s=4 / 30, offset_s=6 / 30)  # the golden video: 16 frames every 4th of 30
    seconds = candidates(Scores(id="v", arrays=arrays), frames, hp_decode)
    close(suppressed(seconds, hp_decode), a, "decoded_after_nms")
    inside = decode(Scores(id="v", arrays=arrays), grid, 50.0, hp_decode)
    assert (inside.start_s >= 0).all() and (inside.end_s <= 50).all()


def close(found: Any, a: dict[str, torch.Tensor], name: str) -> None:
    segments, score = a[f"{name}/segments"].numpy(), a[f"{name}/scores"].numpy()
    label = a[f"{name}/labels"].numpy()
    assert len(found) == len(score)
    mine = np.lexsort((found.start_s, found.label, -np.round(found.score, 4)))
    want = np.lexsort((segments[:, 0], label, -np.round(score, 4)))
    np.testing.assert_allclose(found.score[mine], score[want], atol=1e-4)
    assert sorted(found.label.tolist()) == sorted(label.tolist())
    own = np.stack([found.start_s, found.end_s, found.label], 1)
    every = np.concatenate([segments, label[:, None]], 1)
    apart = np.abs(own[:, None] - every[None]).max(axis=2)
    assert (apart.min(axis=0) < 2e-3).all() and (apart.min(axis=1) < 2e-3).all()


@pytest.mark.parametrize("number", golden_names("actionformer/truncate_feats.json"))
def test_crops_keep_instances_that_lie_in_them_by_half(number: str) -> None:
    cases = json.loads(shared("golden/actionformer/truncate_feats.json").read_text())
    case = next(c for k, c in enumerate(cases["cases"]) if str(c.get("name", k)) == number)
    edges = torch.tensor(case["segments"])
    pseudo = {
        "start_t": edges[None, :, 0], "end_t": edges[None, :, 1],
        "label": torch.arange(len(edges))[None],
        "ignored": torch.zeros(1, len(edges), dtype=torch.bool),
    }  # fmt: skip
    first, length = torch.tensor([case["start"]]), torch.tensor([case["length"]])
    found = cropped(pseudo, first, length, case["offset"])
    if case["length"] == case["T"]:  # the released code leaves whole videos as they are
        return
    kept = found["label"][0] >= 0
    made = torch.stack([found["start_t"][0], found["end_t"][0]], 1)[kept]
    torch.testing.assert_close(made, torch.tensor(case["out_segments"]))
    assert found["label"][0][kept].tolist() == case["out_labels"]


def test_losses_and_their_gradients() -> None:
    cases = json.loads((shared("golden/actionformer") / "losses.json").read_text())["cases"]
    assert cases
    for case in cases:
        if case["kind"] == "sigmoid_focal_loss":
            value = torch.tensor(case["inputs"], requires_grad=True)
            label = torch.tensor(case["targets"])
            made = sigmoid_focal(value, label, case["alpha"], case["gamma"])
        else:
            value = torch.tensor(case["input_offsets"], requires_grad=True)
            rule = {"ctr_diou_loss_1d": regression_loss, "ctr_giou_loss_1d": giou_loss}
            made = rule[case["kind"]](value, torch.tensor(case["target_offsets"]))
        np.testing.assert_allclose(made.detach(), case["loss"], atol=1e-6, rtol=1e-4)
        made.sum().backward()  # type: ignore[no-untyped-call]
        np.testing.assert_allclose(value.grad, case["grad"], atol=1e-6, rtol=1e-3)


def test_ignored_instances_teach_neither_action_nor_background() -> None:
    own = {
        "start_t": torch.tensor([[2.0, 10.0]]), "end_t": torch.tensor([[6.0, 14.0]]),
        "label": torch.tensor([[0, 1]]), "ignored": torch.tensor([[False, True]]),
    }  # fmt: skip
    found = targets(own, [16], 2, 4.0, 10.0)
    assert found.positive[0].nonzero()[:, 0].tolist() == [3, 4, 5]
    assert found.label[0].sum(dim=0).tolist() == [3, 0]
    assert found.ignored[0].nonzero()[:, 0].tolist() == [10, 11, 12, 13, 14]


def random_videos(
    model: ActionFormer, seed: int, length: int, dim: int
) -> tuple[torch.Tensor, torch.Tensor, list[tuple[torch.Tensor, ...]], dict[str, torch.Tensor]]:
    """Two videos, their masks, and their instances one by one and as a table."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(2, length, dim, generator=draw)
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[1, length * 3 // 4 :] = False
    features = features * mask[..., None]
    start = torch.rand(2, 12, generator=draw) * length * 0.6
    end = start + 1 + torch.rand(2, 12, generator=draw) ** 3 * length * 0.2
    label = torch.randint(0, model.class_head.conv.out_channels, (2, 12), generator=draw)
    table_ = {
        "start_t": start, "end_t": end, "label": label,
        "ignored": torch.zeros_like(label, dtype=torch.bool),
    }  # fmt: skip
    return features, mask, [(start[k], end[k], label[k]) for k in (0, 1)], table_


def test_losses_gradient_and_detections_are_those_of_the_plain_implementation() -> None:
    torch.manual_seed(0)
    hp = ActionFormerTrain(width=16, heads=2, levels=3, window=7)
    model = ActionFormer(8, 4, hp)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    features, mask, videos_, table_ = random_videos(model, 0, 64, 8)
    kept = torch.rand(2, model.pyramid.branches) + 0.5
    want = reference.losses(model, features, mask, kept, videos_, hp)
    reference_grads = torch.autograd.grad(sum(want), list(model.parameters()))
    logits, edges, masks = reference.forward(model, features, mask, kept)
    rules = ActionFormerDecode(candidates=50)
    columns = [[v[k].detach() for v in column] for k in (0, 1) for column in (logits, edges, masks)]
    listed = [reference.detections(*columns[3 * k : 3 * k + 3], rules) for k in (0, 1)]
    output = model(features, mask, kept)
    found = targets(table_, output.sizes, 4, hp.first_range, hp.center_radius)
    terms = detection_losses(model, output, found, hp, step())
    torch.testing.assert_close(terms["class"], want[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(terms["edges"], want[1], rtol=1e-4, atol=1e-6)
    own = torch.autograd.grad(terms["class"] + terms["edges"], list(model.parameters()))
    for a, b in zip(own, reference_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    for k in (0, 1):
        split = zip(
            torch.split(torch.sigmoid(output.logit[k]), output.sizes),
            torch.split(output.edges[k], output.sizes),
            torch.split(output.mask[k], output.sizes),
            strict=True,
        )
        arrays = {}
        for level, (score, edge, real) in enumerate(split):
            arrays[f"score{level}"] = score[real].detach().numpy()
            arrays[f"edges{level}"] = (edge[real] * 2**level).detach().numpy()
        grid = Grid(stride_s=1.0, offset_s=-0.5)
        made = suppressed(candidates(Scores(id="v", arrays=arrays), grid, rules), rules)
        mine = sorted(zip(made.score, made.start_s, made.end_s, made.label, strict=True))[-100:]
        theirs = sorted((s, a, b, c) for a, b, s, c in listed[k])[-100:]
        np.testing.assert_allclose(np.array(mine), np.array(theirs), atol=2e-3)
