"""A client of a real server, with the commands that the server runs itself."""

from __future__ import annotations

import unittest
from datetime import datetime, timezone

from lts_client import Client, Conflict, Invalid, NotFound, TaskFailed, Unreachable

from .support import ServerCase, until


class ClientTest(ServerCase):
    def test_submit_and_wait(self) -> None:
        task = self.client.submit("process", {"argv": ["echo", "hi"]}, labels={"who": "me"}, timeout=60)
        ended = self.client.wait(task.id, 60)
        self.assertEqual((ended.state, ended.attempt, ended.raw["labels"]), ("succeeded", 1, {"who": "me"}))
        self.assertEqual(self.client.logs(task.id), "hi\n")
        self.assertEqual("".join(self.client.follow(task.id)), "hi\n")
        self.assertEqual(self.client.result(task.id)["exit_code"], 0)

    def test_a_failure_has_a_reason_and_no_result(self) -> None:
        task = self.client.submit("process", {"argv": ["sh", "-c", "exit 7"]})
        with self.assertRaises(TaskFailed) as raised:
            self.client.result(task.id, 60)
        self.assertEqual(raised.exception.task.failure["exit_code"], 7)
        self.assertEqual(self.client.retry(task.id).raw["generation"], 1)
        self.assertEqual(self.client.wait(task.id, 60).state, "failed")

    def test_submitting_again_makes_no_second_task(self) -> None:
        first = self.client.submit("process", {"argv": ["true"]}, id="once", held=True)
        self.assertEqual((first.state, self.client.submit("process", {"argv": ["true"]}, id="once").state), ("held", "held"))
        with self.assertRaises(Conflict):
            self.client.submit("process", {"argv": ["false"]}, id="once")

    def test_many_are_answered_one_by_one(self) -> None:
        tasks = [Client.submission("process", {"argv": ["true"]}, id=f"many-{n}", delay=3600) for n in range(3)]
        answers = self.client.submit_many(tasks + [Client.submission("process", {"argv": ["false"]}, id="many-0")])
        self.assertEqual([answer.outcome for answer in answers], ["created"] * 3 + ["refused"])
        self.assertIn("many-0", answers[3].error or "")
        self.assertEqual(self.client.cancel("many-1").state, "cancelled")
        self.assertEqual(self.client.get("many-2").state, "waiting")

    def test_a_task_that_waits_is_given_another_time_and_priority(self) -> None:
        task = self.client.submit("process", {"argv": ["true"]}, delay=3600)
        at = datetime(2100, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
        moved = self.client.reschedule(task.id, run_at=at, priority=-2).raw
        self.assertEqual((moved["run_at"], moved["priority"]), ("2100-01-02T03:04:05.000000Z", -2))
        self.assertEqual(self.client.reschedule(task.id, delay=0).raw["priority"], -2)
        self.assertEqual(self.client.wait(task.id, 60).state, "succeeded")
        with self.assertRaises(Conflict):
            self.client.reschedule(task.id, delay=0)
        with self.assertRaises(Invalid):
            self.client.reschedule(task.id)

    def test_what_makes_no_sense_is_refused_in_a_sentence(self) -> None:
        with self.assertRaisesRegex(NotFound, "there is no task nobody"):
            self.client.get("nobody")
        with self.assertRaises(Invalid):
            self.client.submit("process", {"argv": ["true"]}, priority="high")  # type: ignore[arg-type]
        with self.assertRaisesRegex(Unreachable, "cannot reach the server"):
            Client("http://127.0.0.1:1", patience=0).get("x")
        for bad in ("127.0.0.1:7600", "ftp://x", "http://a:b@c"):
            with self.assertRaises(ValueError):
                Client(bad)

    def test_waiting_has_a_bound(self) -> None:
        task = self.client.submit("process", {"argv": ["true"]}, held=True)
        with self.assertRaises(TimeoutError):
            self.client.wait(task.id, 0.05)

    def test_a_server_that_is_started_again_is_found_again(self) -> None:
        task = self.client.submit("process", {"argv": ["sleep", "1"]})
        until("running", lambda: self.client.get(task.id).state == "running")
        address = self.url.split("//")[1]
        type(self).tearDownClass()
        type(self).serve(address)
        ended = self.client.wait(task.id, 60)
        self.assertEqual((ended.state, ended.attempt), ("succeeded", 1))


if __name__ == "__main__":
    unittest.main()
