"""A real server of its own for each class of tests, on a free port and in a directory of its own."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
import time
import unittest
from typing import Any, Callable, List, Optional

from lts_client import Client, Worker

#: Within so many seconds everything here has happened, or something hangs.
WITHIN = 60.0
#: The lease of the workers: the shortest there is.
LEASE = 1.0


def until(what: str, is_so: Callable[[], Any]) -> Any:
    """Looks until something is so."""
    end = time.monotonic() + WITHIN
    while True:
        found = is_so()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"never: {what}")
        time.sleep(0.02)


class ServerCase(unittest.TestCase):
    """Has ``self.client`` and ``self.url``."""

    server: "subprocess.Popen[str]"
    url: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.directory.cleanup)
        cls.serve("127.0.0.1:0")

    @classmethod
    def serve(cls, address: str) -> None:
        program = os.environ["LTS_PROGRAM"]
        command = [program, "dev", "--listen", address, "--concurrency", "2"]
        cls.server = subprocess.Popen(command, cwd=cls.directory.name, stderr=subprocess.PIPE, text=True)
        assert cls.server.stderr is not None
        heard = cls.server.stderr.readline()
        found = re.search(r"http://\S+", heard)
        if found is None:
            raise AssertionError(f"no server: {heard}{cls.server.stderr.read()}")
        cls.url = found.group()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.kill()
        cls.server.wait()
        cls.server.stderr.close()  # type: ignore[union-attr]

    def setUp(self) -> None:
        self.client = Client(self.url)
        self.addCleanup(self.client.close)

    def started(self, worker: Worker) -> "Thread":
        thread = Thread(worker)
        self.addCleanup(thread.stop)
        return thread

    def worker(self, **options: Any) -> Worker:
        return Worker(self.url, lease=LEASE, **options)


class Thread(threading.Thread):
    """A worker that runs in this program."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(daemon=True)
        self.worker, self.error = worker, None  # type: Worker, Optional[BaseException]
        self.start()

    def run(self) -> None:
        try:
            self.worker.run(signals=False, grace=WITHIN)
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self.worker.stop()
        self.join(WITHIN)
        if self.is_alive():
            raise AssertionError("the worker does not end")


def states(client: Client, ids: List[str]) -> List[str]:
    return [client.get(id).state for id in ids]
