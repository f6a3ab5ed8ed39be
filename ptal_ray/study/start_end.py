"""The start and the end of running a study: its lock, its first and its last event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, NoTrialFinished, StorageError
from ptal_ray.storage.lock import locked
from ptal_ray.study.event_types import Event, StudyEnd, StudyStart
from ptal_ray.study.events import EventLog
from ptal_ray.study.feasibility import group_note
from ptal_ray.study.provenance import provenance
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView
from ptal_ray.training.supervision import annotated_ids, fold


@contextmanager
def locked_study(directory: Path) -> Iterator[None]:
    """Prevent a second process from running the study; the lock ends with this process.

    Raises:
        ConfigError: another process runs this study.
    """
    with locked(directory / "lock", wait=False) as free:
        if not free:
            raise ConfigError(
                f"{directory}: another process runs this study; wait for it or stop it"
            )
        yield


@contextmanager
def recorded(study: Study, log: EventLog, listen: Callable[[Event], None]) -> Iterator[None]:
    """Log the start of a study and, however the block ends, its end.

    Args:
        study: the study.
        log: its log.
        listen: called with both events after they are on disk.
    """
    _write(study_event(study), log, listen)
    state, message = "done", ""
    try:
        yield
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    except NoTrialFinished as error:
        message = str(error)
        raise
    except BaseException as error:
        state, message = "interrupted", f"{type(error).__name__}: {error}"
        raise
    finally:
        try:
            _write(end_event(state, StudyView.read(study.directory), message), log, listen)
        except StorageError:
            if state == "done":  # otherwise the log has no end event
                raise


def _write(event: Event, log: EventLog, listen: Callable[[Event], None]) -> None:
    log.append(event)
    listen(event)


def study_event(study: Study) -> StudyStart:
    """Everything that is true of the whole study."""
    store = FeatureStore.open(study.store)
    info, space = store.info, study.space
    external, drawn = space.remark(), study.points and f"points drawn anew: {study.points}"
    return StudyStart(
        study=study.name,
        method=space.method,
        dataset=info.name,
        features=info.features,
        note="; ".join(filter(None, [info.note, external, drawn, group_note(study, store)])),
        external=external,
        points=study.points,
        space=space.as_dict(),
        defaults={"train": space.train_defaults(), "decode": space.decode_defaults()},
        seed=study.seed,
        num_trials=study.num_trials,
        protocol=study.protocol,
        **provenance(),
        data_hash=study.data_hash,
        searcher=study.searcher,
        scheduler=study.scheduler,
        warm_start=tuple(dict.fromkeys(one.study for one in study.warm_start)),
        annotated=_annotated(study, store),
        test_videos=len(store.ids("test")),
    )


def _annotated(study: Study, store: FeatureStore) -> dict[str, list[str]]:
    """Ids whose annotations the search and the final runs may read; empty for point supervision.

    The trials of a race have different folds, and together they read all of them.
    """
    hp, selection = study.space.train_params(), study.space.selection
    known = annotated_ids(store, hp)
    if known and study.space.policy == "race":
        return {"search": list(known), "final": list(known)}
    fit, _ = fold(store, hp, selection.val_fraction, selection.fold_seed)
    return {"search": [i for i in fit if i in known], "final": list(known)} if known else {}


def end_event(state: str, view: StudyView, message: str = "") -> StudyEnd:
    """The end event of a study, with its recommendation; `state` is "done" or "interrupted"."""
    if (best := view.recommended) is None:
        return StudyEnd(state=state, message=message)
    return StudyEnd(
        state=state, message=message, verdict=best.verdict, difference=best.difference,
        arms=best.arms, best_trial=best.trial, recommended=best.short(),
    )  # fmt: skip
