"""A study that grows while its tracker follows it; also a process of its own:

python tracked_study.py DIRECTORY SHARE

waits for a line on its input and prints what MLflow lacks in the end, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from synthetic_study import STEPS, SyntheticStudy

from ptal_ray.tracking.tracker import MlflowTracker


def grow(study: SyntheticStudy, trials: range, share: float, pause_s: float) -> None:
    """Trials that report every `pause_s`; `share` of the usual quality tells studies apart."""
    for number in trials:
        quality = share * study.start(number)
        for step in STEPS:
            study.report(number, step, quality)
            time.sleep(pause_s)
        study.append("trial_end", trial=number, state="complete", message="")


def main() -> None:
    study, share = SyntheticStudy(Path(sys.argv[1])), float(sys.argv[2])
    sys.stdin.readline()
    tracker = MlflowTracker(study.directory)
    tracker.start()
    study.begin()
    grow(study, range(4), share, pause_s=0.1)
    study.finals()
    study.end()
    print(json.dumps(tracker.close(600.0)))


if __name__ == "__main__":
    main()
