"""Runs tasks of a server in Python functions.

A lease is (task, owner, run): whatever a worker says under one that is over changes nothing. A worker renews its life by
heartbeats; one that is silent for longer than its lease is declared dead by the others, and its tasks are tried again.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import traceback
import uuid
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, Type

from ._http import Backoff, Conflict, LtsError, NotRegistered, Transport, Unreachable, decode, encode, span

#: How long one claim waits at the server where there is nothing to take, in seconds.
_CLAIM_WAIT = 20.0
#: How often progress and logs are sent at most, in seconds.
_SEND_EVERY = 0.2
#: How long after a wish to stop a function that still runs is called unconfirmed, in seconds.
_STOP_GRACE = 5.0
#: Added to a third of the lease between the two looks that prove a death, in seconds; less with a lease up to five.
_OBSERVE, _OBSERVE_FAST, _FAST_LEASE = 2.0, 1.0, 5.0
#: How many tasks are taken over at once.
_RESCUE_BATCH = 100
#: Longest piece of a log, in bytes.
_LOG_PIECE = 128 << 10
#: Longest text of a failure, in characters.
_MESSAGE_MAX = 4_000

Handler = Callable[["Context", Any], Any]


class Cancelled(BaseException):
    """The run is to stop: raised by :meth:`Context.check`. Let it pass.

    No :class:`Exception`, so that ``except Exception`` does not keep a run alive.
    """


class Fatal(Exception):
    """Raised by a handler: the task has failed, and no other try can mend it."""


class Retry(Exception):
    """Raised by a handler: try again, no sooner than ``after`` seconds from now, if the task may be tried again."""

    def __init__(self, message: str, after: Optional[float] = None) -> None:
        super().__init__(message)
        self.after = after


class _Kind:
    def __init__(self, handler: Handler, retry_on: Optional[Tuple[Type[BaseException], ...]], fatal: Tuple[Type[BaseException], ...]) -> None:
        self.handler, self.retry_on, self.fatal = handler, retry_on, fatal

    def failure(self, error: BaseException) -> Dict[str, Any]:
        """What the server is told of an exception."""
        last = traceback.extract_tb(error.__traceback__)
        place = f" ({os.path.basename(last[-1].filename)}:{last[-1].lineno})" if last else ""
        message = f"{type(error).__name__}: {error}{place}"[:_MESSAGE_MAX]
        if isinstance(error, Retry):
            failure = {"kind": "error", "message": str(error)[:_MESSAGE_MAX]}
            return failure if error.after is None else {**failure, "retry_after": span(error.after)}
        if isinstance(error, Fatal):
            return {"kind": "error", "message": str(error)[:_MESSAGE_MAX], "fatal": True}
        wanted = self.retry_on is None or isinstance(error, self.retry_on)
        return {"kind": "error", "message": message, "fatal": not wanted or isinstance(error, self.fatal)}


class Context:
    """What a handler knows of its run, and says of it."""

    def __init__(self, worker: "Worker", task: Dict[str, Any]) -> None:
        self._worker, self._task = worker, task
        self._lock = threading.Lock()
        self._why: Optional[str] = None
        self._stop = threading.Event()
        self._stop_since: Optional[float] = None
        self._unconfirmed = False
        self._progress_sent = float("-inf")
        self._log = {name: _Log() for name in ("stdout", "stderr")}
        self._lease = (task["owner"], task["run"])
        #: By when the run is over at the latest, on the monotonic clock.
        self._until = self._bound()

    def _bound(self) -> Optional[float]:
        options = self._task.get("options") or {}
        left = []
        if "timeout" in options:
            left.append(("timeout", float(options["timeout"].strip("PTSs"))))
        if "deadline" in options:
            left.append(("deadline", _time(options["deadline"]) - self._worker._server_time()))
        if not left:
            return None
        self._bound_kind, seconds = min(left, key=lambda one: one[1])
        return time.monotonic() + seconds

    @property
    def id(self) -> str:
        """The task."""
        return str(self._task["id"])

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self._task["kind"])

    @property
    def queue(self) -> str:
        """Its queue."""
        return str(self._task["queue"])

    @property
    def attempt(self) -> int:
        """How often it was started; the first is 1."""
        return int(self._task["attempt"])

    @property
    def idempotency_key(self) -> str:
        """The same for this start of the task, whatever happens; another for every other start."""
        return f"{self.id}/{self._task['execution']}"

    @property
    def cancelled(self) -> bool:
        """Whether the run is to stop: cancelled, over its time, lost to another worker, or drained."""
        return self._stop.is_set()

    def check(self) -> None:
        """Raises :class:`Cancelled` if the run is to stop. Call it often in long loops."""
        if self._stop.is_set():
            raise Cancelled(self._why)

    def sleep(self, seconds: float) -> None:
        """Sleeps, and wakes with :class:`Cancelled` if the run is to stop."""
        self._stop.wait(seconds)
        self.check()

    def progress(self, done: int, total: int = 0, message: str = "") -> None:
        """Says how far the run has come; may be called as often as one likes."""
        now = time.monotonic()
        if now - self._progress_sent < _SEND_EVERY and not (total and done >= total):
            return
        self._progress_sent = now
        self._report("progress", progress={"done": done, "total": total, "message": message})

    def log(self, text: str, stream: str = "stdout") -> None:
        """Writes to the task's log, a line unless it ends with one."""
        log = self._log[stream]
        with self._lock:
            log.pending += text.encode() if text.endswith("\n") else text.encode() + b"\n"
            due = time.monotonic() - log.sent >= _SEND_EVERY or len(log.pending) >= _LOG_PIECE
        if due:
            self._flush(stream)

    def _flush(self, stream: str) -> bool:
        """Sends what is not sent yet; whether all is."""
        log = self._log[stream]
        with self._lock:
            log.sent = time.monotonic()
            while log.pending:
                piece = bytes(log.pending[:_LOG_PIECE])
                sent = {
                    "id": self.id,
                    "execution": self._task["execution"],
                    "stream": stream,
                    "offset": log.offset,
                    "data": encode(piece) if not _is_text(piece) else {"text": piece.decode()},
                }
                try:
                    answer = self._worker._call("/logs", [sent])[0]
                except Unreachable:
                    return False
                except LtsError:
                    answer = {}
                # What the server does not want is dropped: it would not want it later.
                log.offset = answer.get("len", log.offset)
                del log.pending[: len(piece)]
        return True

    def _report(self, path: str, **said: Any) -> None:
        """Says something that nobody needs to know."""
        owner, run = self._lease
        try:
            answer = self._worker._call(f"/{path}", [{"id": self.id, "owner": owner, "run": run, **said}])[0]
        except LtsError:
            return
        if answer["outcome"] in ("stale", "missing"):
            self._end("lost")

    def _end(self, why: str) -> None:
        """Asks the run to stop, for the first reason that there is."""
        if not self._stop.is_set():
            self._why, self._stop_since = why, time.monotonic()
            self._stop.set()

    def _look(self, now: float) -> None:
        """What the passing of time means for the run."""
        if self._until is not None and now >= self._until:
            self._end(self._bound_kind)
        overdue = self._stop_since is not None and now - self._stop_since >= _STOP_GRACE
        if overdue and not self._unconfirmed and self._why != "lost":
            # A function cannot be killed: it keeps its slot, and everybody sees why.
            self._unconfirmed = True
            self._report("apply", event="stop_unconfirmed")


class _Log:
    def __init__(self) -> None:
        self.pending, self.offset, self.sent = bytearray(), 0, float("-inf")


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False


def _time(text: str) -> float:
    """A time of the server, in seconds."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc).timestamp()


class Worker:
    """Takes tasks of the kinds that it has handlers for, and runs each in a thread.

    ``queues``: only of these, by default of all that the token is for. ``lease``: for how many seconds it may be silent
    before others take its tasks over.
    """

    def __init__(
        self,
        url: str,
        token: Optional[str] = None,
        *,
        queues: Sequence[str] = (),
        concurrency: int = 4,
        lease: float = 15.0,
        name: Optional[str] = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency is at least 1")
        if lease < 1:
            raise ValueError("a lease is at least one second")
        self._transport = Transport(url, token)
        self._queues, self._concurrency, self._lease = list(queues), concurrency, float(lease)
        self._name = name or f"{socket.gethostname()}, pid {os.getpid()}, python"
        self._kinds: Dict[str, _Kind] = {}
        self._id = ""
        self._number = 0
        self._held: Dict[str, Context] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._signalled = False
        self._error: Optional[LtsError] = None
        self._claiming: Any = None
        self._mismatched: Dict[str, int] = {}
        self._suspects: Dict[str, Tuple[int, float]] = {}
        self._clock_offset = 0.0

    def task(
        self,
        kind: str,
        *,
        retry_on: Optional[Iterable[Type[BaseException]]] = None,
        fatal: Iterable[Type[BaseException]] = (),
    ) -> Callable[[Handler], Handler]:
        """Runs tasks of this kind with the function below: it gets a :class:`Context` and the payload, and what it
        returns is the result.

        An exception is a failure, which the server tries again by the task's retry policy; but not those in ``fatal``,
        and, if ``retry_on`` is given, only those in there.
        """

        def register(handler: Handler) -> Handler:
            self._kinds[kind] = _Kind(handler, None if retry_on is None else tuple(retry_on), tuple(fatal))
            return handler

        return register

    def run(self, *, signals: bool = True, grace: float = 30.0) -> None:
        """Takes and runs tasks until SIGTERM, Ctrl-C, :meth:`stop`, or an operator has it drain. Then it takes nothing
        more, lets what runs come to its end for ``grace`` seconds, and gives the rest back to be run elsewhere."""
        if not self._kinds:
            raise ValueError("there is no handler; add one with @worker.task(kind)")
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                # No more than this: the handler may run in the middle of anything.
                signal.signal(number, lambda *_: setattr(self, "_signalled", True))
        self._register()
        threads = [threading.Thread(target=each, daemon=True) for each in (self._beat, self._claim)]
        for thread in threads:
            thread.start()
        while not self._stopping.wait(0.2) and not self._signalled:
            pass
        self._stopping.set()
        while threads[1].is_alive():
            self._transport.interrupt(self._claiming)
            threads[1].join(0.2)
        self._drain(grace)
        self._ended.set()
        threads[0].join()
        try:
            self._call("/leave", {"worker": self._id})
        except LtsError:
            pass  # Then its lease ends by itself.
        self._transport.close_all()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Has :meth:`run` come to its end."""
        self._stopping.set()

    def _call(self, path: str, body: Any, timeout: float = 30.0) -> Any:
        return self._transport.call("POST", f"/api/v1/leases{path}", body, timeout=timeout)

    def _server_time(self) -> float:
        return time.time() + self._clock_offset

    def _register(self) -> None:
        self._id, self._number = str(uuid.uuid4()), 0
        backoff = Backoff()
        while True:
            try:
                self._call("/register", {"worker": self._id, "name": self._name, "ttl": span(self._lease)})
                break
            except Conflict:
                break  # The answer to the first request was lost.
            except Unreachable:
                if self._stopping.is_set():
                    return
                time.sleep(backoff.next())
        self._heartbeat()

    # Claims

    def _claim(self) -> None:
        """The loop that takes tasks. What the server refuses for good ends the worker."""
        try:
            self._claims()
        except LtsError as error:
            self._error = error
            self._stopping.set()
        self._transport.close()

    def _claims(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: len(self._held) < self._concurrency or self._stopping.is_set(), timeout=0.5)
                free = self._concurrency - len(self._held)
            if free < 1 or self._stopping.is_set():
                continue
            self._number += 1
            worker = self._id
            while not self._claim_once(worker, free, _CLAIM_WAIT):
                # The same number again: the answer is the same, and nothing is taken twice.
                if self._stopping.wait(backoff.next()) or worker != self._id:
                    break
            else:
                backoff = Backoff()
        if self._number:
            # What the last claim took, if its answer was cut off, is given back at once.
            self._claim_once(self._id, 0, 0)

    def _claim_once(self, worker: str, free: int, wait: float) -> bool:
        """Asks for tasks and begins to run them; whether there was an answer."""
        request = {"worker": worker, "number": self._number, "kinds": sorted(self._kinds), "queues": self._queues, "limit": free}
        if wait:
            request["wait"] = span(wait)
        try:
            if self._transport.connection() is None:
                # So that there is a connection, which a stop can interrupt.
                self._transport.call("GET", "/api/v1/leases")
            self._claiming = self._transport.connection() if wait else None
            claim = self._call("", request, timeout=wait + 30.0)
        except Unreachable:
            return False
        except NotRegistered:
            time.sleep(_SEND_EVERY)  # The next heartbeat registers anew.
            return True
        finally:
            self._claiming = None
        for task in claim["tasks"]:
            with self._changed:
                known = task["id"] in self._held
            if known:
                continue
            if self._stopping.is_set():
                self._give_back(task)
            else:
                self._start(task)
        return True

    def _give_back(self, task: Dict[str, Any]) -> None:
        lease = {"id": task["id"], "owner": task["owner"], "run": task["run"]}
        self._say("/release", {**lease, "message": "the worker was stopped before it began"})

    # Runs

    def _start(self, task: Dict[str, Any]) -> None:
        context = Context(self, task)
        with self._changed:
            self._held[task["id"]] = context
        threading.Thread(target=self._run, args=(context, task), daemon=True).start()

    def _run(self, context: Context, task: Dict[str, Any]) -> None:
        kind = self._kinds[task["kind"]]
        said: Optional[Tuple[str, Dict[str, Any]]] = None
        try:
            context.check()
            result = encode(kind.handler(context, decode(task["payload"])))
            said = ("/complete", {"result": result})
        except Cancelled:
            pass
        except BaseException as error:  # noqa: B902, whatever a handler raises is the end of its run only
            said = ("/fail", {"failure": kind.failure(error)})
        for stream in context._log:
            # The last lines are worth a few tries.
            for _ in range(3):
                if context._flush(stream):
                    break
                time.sleep(_SEND_EVERY)
        # A result that came too late for a timeout is none: the attempt was over.
        if context._why is not None and (said is None or context._why in ("timeout", "deadline")):
            said = self._stopped(context)
        if said is not None:
            path, body = said
            try:
                self._report_end(context, path, body)
            except LtsError as error:
                # What the server does not take, such as a result that is too large, is the end of the task.
                self._report_end(context, "/fail", {"failure": {"message": str(error)[:_MESSAGE_MAX], "fatal": True}})
        with self._changed:
            if self._held.get(context.id) is context:
                del self._held[context.id]
            self._changed.notify_all()
        self._transport.close()

    def _stopped(self, context: Context) -> Optional[Tuple[str, Dict[str, Any]]]:
        """What is said of a run that was asked to stop, and has."""
        if context._why == "cancelled":
            return "/apply", {"event": "cancelled"}
        if context._why == "drained":
            return "/release", {"message": "the worker was stopped"}
        if context._why in ("timeout", "deadline"):
            message = "the attempt ran longer than its timeout" if context._why == "timeout" else "the deadline passed"
            return "/fail", {"failure": {"kind": context._why, "message": message}}
        return None

    def _report_end(self, context: Context, path: str, body: Dict[str, Any]) -> None:
        owner, run = context._lease
        answer = self._say(path, {"id": context.id, "owner": owner, "run": run, **body})
        if answer is not None and answer["outcome"] == "stale" and context._lease != (owner, run):
            # It was taken up again by this very worker, under another lease.
            owner, run = context._lease
            self._say(path, {"id": context.id, "owner": owner, "run": run, **body})

    def _say(self, path: str, item: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        """Says what must be known, for as long as it takes."""
        backoff = Backoff()
        while True:
            try:
                return self._call(path, [item])[0]
            except Unreachable:
                if self._ended.wait(backoff.next()):
                    return None

    def _drain(self, grace: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._held, timeout=grace)
            for context in self._held.values():
                context._end("drained")
            self._changed.wait_for(lambda: not self._held, timeout=_STOP_GRACE)

    # Heartbeats

    def _beat(self) -> None:
        """The loop that keeps this worker alive in the server's eyes, and takes over from those that are not."""
        interval, backoff = self._lease / 3, Backoff()
        next_beat = time.monotonic()
        while not self._ended.wait(0.05):
            now = time.monotonic()
            with self._changed:
                held = list(self._held.values())
            for context in held:
                context._look(now)
            if now < next_beat:
                continue
            try:
                self._heartbeat()
                if not self._stopping.is_set():
                    self._rescue()
                    self._disown()
                next_beat, backoff = now + interval, Backoff()
            except NotRegistered:
                # Declared dead: the tasks may be somebody else's by now. A fresh id, and they are taken up again.
                self._mismatched, self._suspects = {}, {}
                self._register()
            except LtsError:
                # No failed look may lie between the two that prove a death.
                self._suspects = {}
                next_beat = now + min(backoff.next(), interval)
        self._transport.close()

    def _heartbeat(self) -> None:
        """One heartbeat, and what it brings."""
        # As they are before it is sent: what comes after may be a later run than the one that is spoken of.
        with self._changed:
            held = dict(self._held)
        ours = [(id, context._lease[1]) for id, context in held.items() if context._lease[0] == self._id]
        digest = 0
        for id, run in ours:
            digest ^= _hash(id, run)
        beat = {"worker": self._id, "holdings": {"count": len(ours), "hash": f"{digest:016x}"}}
        reply = self._call("/heartbeat", beat, timeout=min(5.0, self._lease))
        self._clock_offset = _time(reply["now"]) - time.time()
        if reply.get("drain"):
            # As an operator wishes: what runs here comes to its end, and this worker leaves.
            self.stop()
        for id in reply["cancel"]:
            if id in held:
                held[id]._end("cancelled")
        last, self._mismatched = self._mismatched, {}
        if reply.get("owned") is not None:
            self._compare(held, last, {one["id"]: one["run"] for one in reply["owned"]})

    def _compare(self, held: Dict[str, Context], last: Dict[str, int], owned: Dict[str, int]) -> None:
        """Mends what the server sees differently, once two heartbeats in a row have found it."""
        for id, context in held.items():
            owner, run = context._lease
            if owner == self._id and owned.get(id) != run:
                self._mismatch(last, id, run, lambda context=context: context._end("lost"))
        for id, run in owned.items():
            if id not in held:
                self._mismatch(last, id, run, lambda id=id, run=run: self._take_up(id, run))

    def _take_up(self, id: str, run: int) -> None:
        """A task that was taken over, of which the answer was lost. A claim is repeated until it is answered."""
        task = self._call("/get", [id])[0]
        if task is not None and task["owner"] == self._id and task["run"] == run != task["execution"]:
            self._adopt(task)

    def _mismatch(self, last: Dict[str, int], id: str, run: int, act: Callable[[], Any]) -> None:
        if last.get(id) == run:
            act()
        else:
            self._mismatched[id] = run

    def _rescue(self) -> None:
        """Looks at the other workers, and takes over the tasks of who is dead."""
        now = time.monotonic()
        observe = self._lease / 3 + (_OBSERVE_FAST if self._lease <= _FAST_LEASE else _OBSERVE)
        before, self._suspects, dead = self._suspects, {}, []
        orphans = False
        response = self._transport.call("GET", "/api/v1/leases/workers")
        for one in response:
            if one["worker"] == self._id:
                continue
            orphans = orphans or (one["dead"] and one["owned"] > 0)
            if one["dead"] or not one["expired"]:
                continue
            beat, since = before.get(one["worker"], (None, now))
            since = since if beat == one["beat"] else now
            self._suspects[one["worker"]] = (one["beat"], since)
            if now - since >= observe:
                dead.append({"worker": one["worker"], "beat": one["beat"]})
        if not dead and not orphans:
            return
        request = {"worker": self._id, "suspects": dead, "kinds": sorted(self._kinds), "queues": self._queues, "limit": _RESCUE_BATCH}
        for task in self._call("/rescue", request)["tasks"]:
            self._adopt(task)

    def _disown(self) -> None:
        """Gives up runs from before this worker was declared dead, that others have taken since."""
        with self._changed:
            held = [context for context in self._held.values() if context._lease[0] != self._id]
        if held:
            for context, task in zip(held, self._call("/get", [context.id for context in held])):
                if task is None or (task["owner"], task["run"]) != context._lease:
                    context._end("lost")

    def _adopt(self, task: Dict[str, Any]) -> None:
        with self._changed:
            held = self._held.get(task["id"])
            if held is not None and held._task["execution"] == task["execution"]:
                # Our own run, from before this worker was declared dead.
                held._lease = (task["owner"], task["run"])
                return
        lease = {"id": task["id"], "owner": task["owner"], "run": task["run"]}
        output = (task.get("details") or {}).get("output")
        if task["state"] == "exporting" and output is not None:
            self._call("/complete", [{**lease, "result": output}])
        elif task["cancel_requested"]:
            self._call("/apply", [{**lease, "event": "cancelled"}])
        else:
            # A function ends with its process: nothing of it can be found again.
            failure = {"kind": "lost", "message": "the worker that ran it has died"}
            self._call("/fail", [{**lease, "failure": failure}])


def _hash(id: str, run: int) -> int:
    """The 64-bit FNV-1a hash over the text of the id and the run."""
    value = 0xCBF29CE484222325
    for byte in id.encode() + run.to_bytes(8, "little"):
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value
