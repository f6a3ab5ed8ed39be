"""How busy the machine of the driver is, under the names that MLflow shows as system metrics."""

from __future__ import annotations

import time

import psutil

EVERY_S = 10.0


class Machine:
    """Looks at the machine every `EVERY_S` seconds, when asked."""

    def __init__(self) -> None:
        self._next, self._step = time.monotonic() + 1.0, 0
        psutil.cpu_percent()  # the next call says what happened since

    def look(self) -> dict[tuple[str, int], tuple[float, int]]:
        """(name, step) -> (value, milliseconds since 1970); empty where it is too early."""
        if time.monotonic() < self._next:
            return {}
        self._next = time.monotonic() + EVERY_S
        self._step += 1
        memory = psutil.virtual_memory()
        values = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_percentage": memory.percent,
            "system/system_memory_usage_megabytes": memory.used / 1e6,
        }
        at = round(time.time() * 1000)
        return {(name, self._step): (value, at) for name, value in values.items()}
