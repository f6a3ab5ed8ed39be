"""ensemble.json: the members whose scores are averaged, in the folder with their models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ptal_ray.errors import DataError
from ptal_ray.storage.ownership import read_object
from ptal_ray.storage.place import inside
from ptal_ray.storage.whole import write_whole
from ptal_ray.study.events import dumps

ENSEMBLE_FILE, KIND, FORMAT = "ensemble.json", "ptal_ray ensemble", 1


@dataclass(frozen=True, kw_only=True)
class MemberModel:
    """One member: the path of its model file, and the weight of its scores."""

    model: Path
    times: int


def write_ensemble(folder: Path, members: Sequence[MemberModel]) -> None:
    """Write the file atomically; the models are in `folder`."""
    rows = [{"model": str(m.model.relative_to(folder)), "times": m.times} for m in members]
    plain = {"kind": KIND, "format": FORMAT, "members": rows}
    write_whole(folder / ENSEMBLE_FILE, dumps(plain, indent=1) + "\n")


def is_ensemble(path: Path) -> bool:
    """Whether a path is that of an ensemble file, not of a single model."""
    return path.suffix == ".json"


def first_model(path: Path) -> Path:
    """The model file for a path: the path itself, or for an ensemble the file of its first member.

    Raises:
        DataError: as `read_ensemble`.
    """
    return read_ensemble(path)[0].model if is_ensemble(path) else path


def read_ensemble(path: Path) -> tuple[MemberModel, ...]:
    """The members that `write_ensemble` wrote.

    Raises:
        DataError: the file is damaged or of another kind, or names a file outside its folder.
    """
    plain = read_object(path)
    rows = plain.get("members")
    if (plain.get("kind"), plain.get("format")) != (KIND, FORMAT) or not isinstance(rows, list):
        raise DataError(
            f"{path}: damaged, or no {ENSEMBLE_FILE} of format {FORMAT}; give a model.pt, or train "
            "the ensemble again"
        )
    if not rows or not all(map(_sound, rows)):
        raise DataError(
            f"{path}: a member needs model, a path, and times, 1 or more; train the ensemble again"
        )
    return tuple(
        MemberModel(model=inside(path.parent, row["model"]), times=row["times"]) for row in rows
    )


def _sound(row: object) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("model"), str):
        return False
    times = row.get("times")
    return isinstance(times, int) and not isinstance(times, bool) and times > 0
