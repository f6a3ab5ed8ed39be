"""The messages between a trial actor and its reused workers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from ptal_ray.study.results import MOST_ATTEMPTS, Failed, Reported, Result

STOP = "stop"  # instead of a job: the workers stop
GO, LEAVE, WAIT = "go", "leave", "wait"
PATIENCE_S = 20.0  # a worker asks again after this, so that no collective waits for long


class Mailbox:
    """Stores one job at a time; an asynchronous actor between one trial actor and rank 0.

    The trial actor calls `post` and `next`, rank 0 of the workers `take`, `report` and `decision`,
    any worker `crashed`. Jobs are numbered from 1; messages about an earlier job are ignored.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._job = ""
        self._number = 0
        self._attempts = 0  # how often the workers took the job
        self._told = 1  # known to the trial actor
        self._closed = False
        self._wanted = False
        self._crash = ""
        self._step: int | None = None  # of the last report
        self._results: asyncio.Queue[Result] = asyncio.Queue()

    async def post(self, job: str) -> None:
        """Replace the job; the workers leave the current one at its next report."""
        async with self._changed:
            self._job, self._number = job, self._number + 1
            self._attempts, self._closed, self._wanted, self._crash = 0, False, False, ""
            self._told, self._step = 1, None
            self._results = asyncio.Queue()
            self._changed.notify_all()

    async def next(self) -> Result:
        """Wait for the next report of the workers, which continue unless one is already here."""
        async with self._changed:
            self._wanted = self._results.empty()
            self._changed.notify_all()
        return await self._results.get()

    async def fail(self, message: str) -> None:
        """End the current job, whose workers are gone, with an error."""
        async with self._changed:
            self._fail(message)

    async def take(self, last: int) -> tuple[int, str] | None:
        """The job after number `last`, or None after a while without one."""
        async with self._changed:
            if not await self._until(lambda: self._number > last and not self._closed):
                return None
            self._attempts += 1
            if self._job != STOP and self._attempts > MOST_ATTEMPTS:
                reason = self._crash or "a worker died"
                self._fail(f"failed {MOST_ATTEMPTS} times; last: {reason}")
                return None
            return self._number, self._job

    async def report(self, number: int, result: Reported | Failed) -> None:
        """Take a report of job `number` from rank 0."""
        async with self._changed:
            if number == self._number and not self._closed:
                self._wanted, self._closed = False, result.done
                if self._attempts > self._told:
                    note = result.note or self._crash or "a worker died"
                    result, self._told = replace(result, note=note), self._attempts
                step = result.step if isinstance(result, Reported) else None
                if step != self._step:  # it makes progress, however often a node is lost
                    self._step = step
                    self._attempts = self._told = 1
                await self._results.put(result)

    async def decision(self, number: int) -> str:
        """After a report: GO on, LEAVE the job, or WAIT and ask again."""
        async with self._changed:
            left = await self._until(lambda: number != self._number or self._closed or self._wanted)
            if number != self._number or self._closed:
                return LEAVE
            return GO if left else WAIT

    async def crashed(self, number: int, message: str) -> None:
        """Record that a worker of job `number` raised; Ray Train restarts all of them."""
        if number == self._number:
            self._crash = message

    async def _until(self, condition: Any) -> bool:
        """Wait for `condition`, for a limited time; returns whether it holds."""
        try:
            await asyncio.wait_for(self._changed.wait_for(condition), PATIENCE_S)
        except TimeoutError:
            return False
        return True

    def _fail(self, message: str) -> None:
        if not self._closed:
            self._closed = True
            self._results.put_nowait(Failed(message=message, crashed=True))
            self._changed.notify_all()
