"""Workers in Python, of a real server: in threads of this program, and in programs that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import unittest
from typing import Any, List

from lts_client import Context, Fatal, Retry, TaskFailed, Worker
from lts_client.worker import _hash

from .support import LEASE, WITHIN, ServerCase, until

#: A worker of its own that notes each start, and in the first waits to be killed.
PROGRAM = """
import os, sys
from lts_client import Worker
worker = Worker(sys.argv[1], lease=float(sys.argv[2]), concurrency=1)

@worker.task("mortal")
def mortal(context, path):
    with open(path, "a") as file:
        file.write(f"{context.attempt} {os.getpid()}\\n")
    while context.attempt == 1:
        context.sleep(0.05)
    return "survived"

@worker.task("drained")
def drained(context, path):
    open(path, "w").close()
    if context.attempt == 1:
        while True:
            context.sleep(0.05)
    return context.attempt

worker.run(grace=0.2)
"""


class WorkerTest(ServerCase):
    def test_a_worker_runs_what_it_has_a_handler_for(self) -> None:
        worker = self.worker()

        @worker.task("add")
        def add(context: Context, numbers: List[int]) -> int:
            context.progress(1, 2, "half")
            context.log("adding")
            context.log("\u52a0", "stderr")
            context.progress(2, 2, "done")
            return sum(numbers)

        self.started(worker)
        tasks = [self.client.submit("add", [n, 1]) for n in range(20)]
        self.assertEqual([self.client.result(task.id, WITHIN) for task in tasks], [n + 1 for n in range(20)])
        self.assertEqual(self.client.logs(tasks[0].id), "adding\n")
        self.assertEqual(self.client.logs(tasks[0].id, "stderr"), "\u52a0\n")

    def test_bytes_go_through_as_they_are(self) -> None:
        worker = self.worker()
        worker.task("echo")(lambda context, payload: b"\xff" + payload.encode())
        self.started(worker)
        self.assertEqual(self.client.result(self.client.submit("echo", "x").id, WITHIN), b"\xffx")

    def test_failures_are_tried_again_by_their_type(self) -> None:
        worker = self.worker()

        @worker.task("fragile", retry_on=(OSError,))
        def fragile(context: Context, error: str) -> int:
            if context.attempt < 3:
                raise {"os": OSError, "value": ValueError}[error]("no")
            return context.attempt

        @worker.task("frail", fatal=(KeyError,))
        def frail(context: Context, how: str) -> int:
            if context.attempt < 2:
                raise {"key": KeyError("k"), "fatal": Fatal("never"), "retry": Retry("soon", after=0.01)}[how]
            return context.attempt

        self.started(worker)
        policy = {"max_attempts": 3, "min_delay": "10ms", "max_delay": "10ms"}

        def outcome(kind: str, payload: str) -> Any:
            try:
                return self.client.result(self.client.submit(kind, payload, retry=policy).id, WITHIN)
            except TaskFailed as failed:
                return failed.task.attempt, failed.task.failure["fatal"]

        self.assertEqual(outcome("fragile", "os"), 3)
        self.assertEqual(outcome("fragile", "value"), (1, True))
        self.assertEqual(outcome("frail", "retry"), 2)
        self.assertEqual(outcome("frail", "key"), (1, True))
        self.assertEqual(outcome("frail", "fatal"), (1, True))
        task = self.client.submit("fragile", "os", retry=2)
        failed = self.client.wait(task.id, WITHIN)
        self.assertEqual((failed.state, failed.attempt), ("failed", 2))
        self.assertIn("OSError: no (test_worker.py:", failed.failure["message"])

    def test_progress_is_seen_and_a_cancel_is_heard(self) -> None:
        worker = self.worker()
        ended = threading.Event()

        @worker.task("long")
        def long(context: Context, _: Any) -> None:
            try:
                context.progress(3, 10, "on it")
                while True:
                    context.sleep(0.02)
            finally:
                ended.set()

        self.started(worker)
        task = self.client.submit("long")
        until("progress", lambda: self.client.get(task.id).progress == {"done": 3, "total": 10, "message": "on it"})
        self.client.cancel(task.id)
        self.assertEqual(self.client.wait(task.id, WITHIN).state, "cancelled")
        self.assertTrue(ended.is_set(), "cancelled means that it has ended")

    def test_a_timeout_ends_an_attempt_and_one_that_does_not_stop_keeps_its_place(self) -> None:
        worker = self.worker(concurrency=1)
        go = threading.Event()
        self.addCleanup(go.set)

        @worker.task("slow")
        def slow(context: Context, stubborn: bool) -> str:
            if stubborn:
                go.wait()
            while context.attempt == 1:
                context.sleep(0.02)
            return "second"

        self.started(worker)
        policy = {"max_attempts": 2, "min_delay": "10ms"}
        task = self.client.submit("slow", False, timeout=0.3, retry=policy)
        self.assertEqual(self.client.result(task.id, WITHIN), "second")
        attempt = self.client._call("GET", f"/api/v1/tasks/{task.id}/attempts")[0]
        self.assertEqual(attempt["failure"]["kind"], "timeout")
        stubborn = self.client.submit("slow", True, timeout=0.3)
        until("unconfirmed", lambda: self.client.get(stubborn.id).raw["stop_unconfirmed"])
        self.assertEqual(self.client.get(stubborn.id).state, "running")
        go.set()
        self.assertEqual(self.client.wait(stubborn.id, WITHIN).failure["kind"], "timeout")

    def test_a_worker_outlives_the_server(self) -> None:
        worker = self.worker()
        started, go = threading.Event(), threading.Event()

        @worker.task("patient")
        def patient(context: Context, _: Any) -> int:
            started.set()
            go.wait(WITHIN)
            return context.attempt

        self.started(worker)
        task = self.client.submit("patient")
        self.assertTrue(started.wait(WITHIN))
        address = self.url.split("//")[1]
        type(self).tearDownClass()
        go.set()
        type(self).serve(address)
        self.assertEqual(self.client.result(task.id, WITHIN), 1, "it was run once")

    def program(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", PROGRAM, self.url, str(LEASE)]
        program = subprocess.Popen(command, cwd=os.path.join(os.path.dirname(__file__), ".."))
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        return program

    def test_the_task_of_a_killed_worker_is_tried_again_by_another(self) -> None:
        path = os.path.join(self.directory.name, "starts")
        task = self.client.submit("mortal", path)
        first = self.program()
        until("started", lambda: os.path.exists(path) and os.path.getsize(path))
        first.kill()
        first.wait()
        self.program()
        self.assertEqual(self.client.result(task.id, WITHIN), "survived")
        with open(path) as file:
            starts = [line.split() for line in file]
        self.assertEqual([start[0] for start in starts], ["1", "2"])
        self.assertNotEqual(starts[0][1], starts[1][1])
        attempt = self.client._call("GET", f"/api/v1/tasks/{task.id}/attempts")[0]
        self.assertEqual(attempt["failure"]["kind"], "lost")

    def test_sigterm_drains_a_worker(self) -> None:
        path = os.path.join(self.directory.name, "begun")
        task = self.client.submit("drained", path)
        first = self.program()
        until("started", lambda: os.path.exists(path))
        first.send_signal(signal.SIGTERM)
        self.assertEqual(first.wait(WITHIN), 0)
        given_back = self.client.get(task.id)
        self.assertEqual((given_back.state, given_back.raw["interruptions"]), ("waiting", 1))
        self.program()
        self.assertEqual(self.client.result(task.id, WITHIN), 2, "an interruption is not charged to its one attempt")


    def test_a_worker_that_an_operator_has_drain_ends_what_runs_and_leaves(self) -> None:
        worker = self.worker(concurrency=1)
        started, go = threading.Event(), threading.Event()
        self.addCleanup(go.set)

        @worker.task("gated")
        def gated(context: Context, _: Any) -> int:
            started.set()
            go.wait(WITHIN)
            return context.attempt

        thread = self.started(worker)
        running = self.client.submit("gated")
        self.assertTrue(started.wait(WITHIN))
        waiting = self.client.submit("gated")
        drained = self.client._call("POST", f"/api/v1/workers/{worker._id}/drain")
        self.assertEqual((drained["draining"], drained["running"]), (True, 1))
        until("heard", worker._stopping.is_set)
        self.assertTrue(thread.is_alive(), "it waits for what runs")
        go.set()
        thread.join(WITHIN)
        self.assertEqual((thread.is_alive(), thread.error), (False, None))
        self.assertEqual(self.client.result(running.id, WITHIN), 1)
        left = self.client.get(waiting.id)
        self.assertEqual((left.state, left.attempt), ("waiting", 0))
        self.assertNotIn(worker._id, [one["id"] for one in self.client._call("GET", "/api/v1/workers")])
        other = self.worker()
        other.task("gated")(gated)
        self.started(other)
        self.assertEqual(self.client.result(waiting.id, WITHIN), 1)


class ProtocolTest(unittest.TestCase):
    def test_the_digest_is_that_of_the_server(self) -> None:
        self.assertEqual(f"{_hash('a', 1):016x}", "dedf9f982e43402d")

    def test_a_worker_without_handlers_or_room_makes_no_sense(self) -> None:
        with self.assertRaises(ValueError):
            Worker("http://127.0.0.1:1").run()
        with self.assertRaises(ValueError):
            Worker("http://127.0.0.1:1", concurrency=0)


if __name__ == "__main__":
    unittest.main()
