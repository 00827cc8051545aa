"""Submit tasks to a light-task-scheduler server, wait for them, and run them in Python.

    from lts_client import Client, Worker

    client = Client("http://127.0.0.1:7600")
    task = client.submit("add", [1, 2])
    print(client.result(task.id))          # once a worker has run it

    worker = Worker("http://127.0.0.1:7600")

    @worker.task("add")
    def add(context, numbers):
        return sum(numbers)

    worker.run()                           # until SIGTERM or Ctrl-C

Everything is standard library; nothing is installed with it.
"""

from ._http import ApiError, Conflict, Denied, Invalid, LtsError, NotFound, NotRegistered, Unreachable
from .client import Client, Submitted, Task, TaskFailed
from .worker import Cancelled, Context, Fatal, Retry, Worker

__all__ = [
    "ApiError",
    "Cancelled",
    "Client",
    "Conflict",
    "Context",
    "Denied",
    "Fatal",
    "Invalid",
    "LtsError",
    "NotFound",
    "NotRegistered",
    "Retry",
    "Submitted",
    "Task",
    "TaskFailed",
    "Unreachable",
    "Worker",
]
