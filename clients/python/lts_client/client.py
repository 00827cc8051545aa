"""Submits tasks, and asks what has become of them."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union
from urllib.parse import quote

from ._http import Conflict, LtsError, Transport, patiently, span

#: States in which nothing more happens by itself.
ENDED = ("succeeded", "failed", "cancelled")
#: How long one request waits for the end of a task, in seconds.
_WAIT = 20.0
#: Most tasks in one request.
_BATCH = 1_000

Seconds = Union[float, str]


@dataclass(frozen=True)
class Task:
    """A task as the server shows it."""

    id: str
    kind: str
    queue: str
    #: ``held``, ``waiting``, ``running``, ``exporting``, ``succeeded``, ``failed`` or ``cancelled``.
    state: str
    #: How often it was started.
    attempt: int
    #: What its run last said of itself: ``done``, ``total``, ``message``.
    progress: Optional[Dict[str, Any]]
    #: Why it, or its last attempt, ended without success: ``kind``, ``message`` and more.
    failure: Optional[Dict[str, Any]]
    #: All that the server says.
    raw: Dict[str, Any] = field(repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state in ENDED


def _task(raw: Dict[str, Any]) -> Task:
    return Task(
        id=raw["id"],
        kind=raw["kind"],
        queue=raw["queue"],
        state=raw["state"],
        attempt=raw["attempt"],
        progress=raw.get("progress"),
        failure=raw.get("failure"),
        raw=raw,
    )


@dataclass(frozen=True)
class Submitted:
    """What became of one of many tasks that were submitted."""

    #: ``created``, ``existing``, ``removed`` or ``refused``.
    outcome: str
    id: Optional[str]
    #: Why it was refused.
    error: Optional[str]


class TaskFailed(LtsError):
    """The task has no result: it failed or was cancelled."""

    def __init__(self, task: Task) -> None:
        why = (task.failure or {}).get("message") or "no reason is known"
        super().__init__(f"task {task.id} is {task.state}: {why}")
        self.task = task


class Client:
    """Talks to a server. It may be used by several threads.

    ``patience`` is for how many seconds a call is repeated while the server cannot be reached; each can be repeated
    without harm.
    """

    def __init__(self, url: str, token: Optional[str] = None, *, patience: float = 30.0) -> None:
        self._transport = Transport(url, token)
        self._patience = patience

    def close(self) -> None:
        """Closes its connections; it may be used again."""
        self._transport.close_all()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _call(self, method: str, path: str, body: Any = None, headers: Optional[Mapping[str, str]] = None) -> Any:
        return patiently(lambda: self._transport.call(method, path, body, headers), self._patience)

    def submit(
        self,
        kind: str,
        payload: Any = None,
        *,
        id: Optional[str] = None,
        queue: Optional[str] = None,
        priority: int = 0,
        timeout: Optional[Seconds] = None,
        deadline: Optional[datetime] = None,
        retry: Union[int, Mapping[str, Any], None] = None,
        labels: Optional[Mapping[str, str]] = None,
        held: bool = False,
        run_at: Optional[datetime] = None,
        delay: Optional[Seconds] = None,
    ) -> Task:
        """Submits a task. The same ``id`` with the same kind and payload answers the task that is there.

        ``retry`` is a number of attempts, or a policy: ``max_attempts``, ``min_delay``, ``max_delay``, ``factor``.
        """
        submission = self.submission(
            kind, payload, id=id, queue=queue, priority=priority, timeout=timeout, deadline=deadline, retry=retry,
            labels=labels, held=held, run_at=run_at, delay=delay,
        )  # fmt: skip
        # Without an id the key makes it harmless to repeat.
        headers = {"Idempotency-Key": str(uuid.uuid4())} if id is None else {}
        return _task(self._call("POST", "/api/v1/tasks", submission, headers))

    @staticmethod
    def submission(kind: str, payload: Any = None, **options: Any) -> Dict[str, Any]:
        """A task for :meth:`submit_many`, from the arguments of :meth:`submit`."""
        made: Dict[str, Any] = {"kind": kind, "payload": payload}
        for name, value in options.items():
            if value is None or value is False:
                continue
            if name in ("timeout", "delay"):
                value = span(value)
            elif name in ("deadline", "run_at"):
                value = _instant(name, value)
            elif name == "retry":
                policy = {"max_attempts": value} if isinstance(value, int) else dict(value)
                value = {key: span(part) if key.endswith("_delay") else part for key, part in policy.items()}
            elif name == "labels":
                value = dict(value)
            made[name] = value
        return made

    def submit_many(self, submissions: Sequence[Mapping[str, Any]]) -> List[Submitted]:
        """Submits many tasks, each made by :meth:`submission`; answers for each."""
        answers: List[Submitted] = []
        for first in range(0, len(submissions), _BATCH):
            part = list(submissions[first : first + _BATCH])
            # Those with ids of their own need none.
            key = {} if all("id" in one for one in part) else {"Idempotency-Key": str(uuid.uuid4())}
            for item in self._call("POST", "/api/v1/tasks/batch", part, key)["results"]:
                error = item.get("error")
                answers.append(Submitted(item["outcome"], item.get("id"), error["detail"] if error else None))
        return answers

    def get(self, id: str) -> Task:
        """Reads a task."""
        return _task(self._call("GET", _path(id)))

    def wait(self, id: str, timeout: Optional[float] = None) -> Task:
        """Waits until a task has ended. Raises :class:`TimeoutError` after so many seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _WAIT if until is None else min(_WAIT, max(0.001, until - time.monotonic()))
            task = _task(self._call("GET", f"{_path(id)}?wait={span(left)}"))
            if task.ended:
                return task
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"task {id} is {task.state} after {timeout} s")

    def result(self, id: str, timeout: Optional[float] = None) -> Any:
        """Waits until a task has ended and reads its result: bytes, if it is no JSON. Raises :class:`TaskFailed`."""
        task = self.wait(id, timeout)
        if task.state != "succeeded":
            raise TaskFailed(task)

        def read() -> Any:
            response = self._transport.open("GET", f"{_path(id)}/result")
            data = self._transport.read(response)
            return json.loads(data) if response.headers.get_content_type() == "application/json" else data

        return patiently(read, self._patience)

    def cancel(self, id: str) -> Task:
        """Cancels a task: at once where it waits; where it runs, as soon as it is confirmed dead."""
        return _task(self._call("POST", f"{_path(id)}/cancel"))

    def retry(self, id: str) -> Task:
        """Runs a task that has ended again, with a fresh budget of attempts."""
        try:
            return _task(self._call("POST", f"{_path(id)}/retry"))
        except Conflict:
            # The answer to the first request may have been lost.
            task = self.get(id)
            if task.ended:
                raise
            return task

    def reschedule(
        self,
        id: str,
        *,
        run_at: Optional[datetime] = None,
        delay: Optional[Seconds] = None,
        priority: Optional[int] = None,
    ) -> Task:
        """Lets a held or waiting task run at another time (``delay=0``: now), or before others. What is left out stays."""
        to: Dict[str, Any] = {}
        if run_at is not None:
            to["run_at"] = _instant("run_at", run_at)
        if delay is not None:
            to["delay"] = span(delay)
        if priority is not None:
            to["priority"] = priority
        return _task(self._call("POST", f"{_path(id)}/reschedule", to))

    def logs(self, id: str, stream: str = "stdout") -> str:
        """What the last start of a task has written."""
        pieces = []
        offset = 0
        while True:
            path = f"{_path(id)}/logs?stream={stream}&offset={offset}"
            data = patiently(lambda: self._transport.read(self._transport.open("GET", path)), self._patience)
            if not data:
                return b"".join(pieces).decode(errors="replace")
            pieces.append(data)
            offset += len(data)

    def follow(self, id: str, stream: str = "stdout") -> Iterator[str]:
        """What a task writes, as it writes it, until it has ended."""
        for name, data in self._transport.events(f"{_path(id)}/logs?stream={stream}&follow=true"):
            if name == "log":
                yield data["text"]
            elif name == "end":
                return


def _instant(name: str, value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError(f"{name} has no time zone")
    return value.isoformat()


def _path(id: str) -> str:
    return f"/api/v1/tasks/{quote(id, safe='')}"
