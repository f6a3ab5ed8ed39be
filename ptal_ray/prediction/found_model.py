"""Finds the model file of a study, a run or a best.yaml."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ptal_ray.errors import DataError, StorageError
from ptal_ray.space.space import load_space
from ptal_ray.storage.folder import Folder
from ptal_ray.storage.place import inside, kept
from ptal_ray.study.ensemble_file import ENSEMBLE_FILE
from ptal_ray.study.event_types import FinalReport
from ptal_ray.study.mirror import check_out
from ptal_ray.study.run_folder import CHECKPOINT, MODEL
from ptal_ray.study.view import StudyView
from ptal_ray.training.model_file import read_model

RETRAIN = (
    "python -m ptal_ray.train BEST.yaml --test --out DIR writes one (--whole without a test split)"
)


def find_model(given: str) -> Path:
    """The model file for an argument of a command, or ensemble.json of several.

    For a study this is the model of the first final run of the best configuration. Choosing the
    seed with the best test result would be selection on the test split.

    Args:
        given: a model file, the folder of a run or of an ensemble, a study directory or its s3://
            address, a best.yaml beside a model file, or models:/NAME/VERSION of the MLflow
            registry.

    Raises:
        ConfigError: the YAML file is not from this package.
        DataError: the model does not exist.
    """
    if given.startswith("models:"):
        from ptal_ray.tracking.registry import registered_model  # MLflow is slow to import

        return registered_model(given)
    if (place := Folder.parse(given)).remote:
        return _remote_model(place)
    path = Path(given).expanduser()
    path = path if path.exists() else kept(path)
    if not path.exists():
        raise DataError(f"{given}: no such file or folder; give a model.pt, a study or a run")
    if path.suffix.lower() in (".yaml", ".yml"):
        return _beside_yaml(path)
    if not path.is_dir():
        return path
    if (path / MODEL).exists():
        return path / MODEL
    if (path / ENSEMBLE_FILE).exists():
        return path / ENSEMBLE_FILE
    if (path / "events.jsonl").exists():
        return _whole(path, inside(path, f"{_best_run(path, given)}/{MODEL}"))
    if (path / CHECKPOINT).exists():
        raise DataError(
            f"{given}: has a checkpoint but no {MODEL}: a run that has not finished (train "
            f"--resume finishes it), a search trial, or trained before models were kept; {RETRAIN}"
        )
    raise DataError(f"{given}: neither a study nor a run; give a folder that holds {MODEL}")


def _remote_model(remote: Folder) -> Path:
    """The model of a study at an address, in its working copy on this machine."""
    try:
        directory = check_out(remote)
        folder = _best_run(directory, str(remote))
        path = inside(directory, f"{folder}/{MODEL}")
        (remote / folder / MODEL).pull(path)
    except StorageError as error:
        raise DataError(f"{remote}: {error}") from error
    return _whole(directory, path)


def _best_run(directory: Path, given: str) -> str:
    """The folder of the first finished run of the recommended configuration on the whole split."""
    done = [run for run in StudyView.read(directory).deployable() if run.metrics]
    if not done:
        raise DataError(
            f"{given}: no final run has finished; python -m ptal_ray.search --resume {given} "
            "finishes them"
        )
    return _folder(done[0])


def _folder(run: FinalReport) -> str:
    return f"final/{run.arm}_seed{run.seed}"


def _whole(study: Path, path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path}: missing; {study.name} ended before models were kept; {RETRAIN}")
    return path


def _beside_yaml(path: Path) -> Path:
    """The model file in the folder of a best.yaml; it must have the same configuration, and the
    decode parameters that the YAML file fixes."""
    beside = path.with_name(MODEL)
    if not beside.exists():
        raise DataError(
            f"{path}: no {MODEL} lies beside it; give the study directory, or train it: "
            f"python -m ptal_ray.train {path} --test --out {path.parent} (--whole without a test "
            "split)"
        )
    space, model = load_space(path), read_model(beside)
    asked = asdict(space.train_params())
    if (space.method, asked) != (model.method, model.train):
        raise DataError(
            f"{path}: {beside.name} beside it is of another configuration ({model.method}); give "
            "the one that you mean"
        )
    for name, value in space.decode_fixed.items():
        if model.decode.get(name) != value:
            raise DataError(
                f"{path}: decode.{name} is {value}, but {beside.name} beside it has "
                f"{model.decode.get(name)}; give {beside} to predict with its own, or train again "
                "with this file"
            )
    return beside
