"""The data of a study, for its reports."""

from __future__ import annotations

from pathlib import Path

from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError
from ptal_ray.storage.ownership import read_object
from ptal_ray.study.view import StudyView


def store_of(view: StudyView, study_dir: Path) -> FeatureStore:
    """The data of a study.

    Raises:
        DataError: it is not here, or not what it was.
    """
    place = Path(read_object(study_dir / "study.json").get("store", ""))
    if not (place / "store.json").exists():
        raise DataError(f"the feature store {place} is not on this machine")
    store = FeatureStore.open(place)
    if store.info.content_hash != view.study.data_hash:
        raise DataError(f"the feature store {place} has changed since the study")
    return store
