"""One way to the server: JSON there and back, over connections that are kept."""

from __future__ import annotations

import base64
import http.client
import json
import random
import socket
import threading
import time
import weakref
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple, Type, Union
from urllib.parse import urlsplit

#: How long a connection may take to be there, and an answer to come, in seconds.
TIMEOUT = 30.0
#: The first and the longest wait before a call that failed is repeated, in seconds.
RETRY_FIRST, RETRY_MAX = 0.1, 2.0


class LtsError(Exception):
    """Whatever goes wrong between this program and the server."""


class Unreachable(LtsError):
    """The server cannot be reached, or cannot answer just now: the same call may succeed later."""


class ApiError(LtsError):
    """The server refuses what was asked."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        #: The status of the answer.
        self.status = status
        #: To decide on, such as ``not_found``.
        self.code = code
        #: What happened, to what, and what to do.
        self.detail = detail


class Invalid(ApiError):
    """The request makes no sense as it is."""


class Denied(ApiError):
    """The token is unknown, or may not do this."""


class NotFound(ApiError):
    """There is no such task."""


class Conflict(ApiError):
    """It contradicts what is stored, or the state of the task forbids it."""


class NotRegistered(ApiError):
    """This worker is not registered any more: it registers anew."""


_ERRORS: Dict[str, Type[ApiError]] = {
    "invalid": Invalid,
    "unauthenticated": Denied,
    "forbidden": Denied,
    "not_found": NotFound,
    "conflict": Conflict,
    "idempotency_mismatch": Conflict,
    "not_registered": NotRegistered,
}
#: These say nothing of the request: it may be repeated.
_TRY_AGAIN = (429, 502, 503, 504)


def span(seconds: Union[float, str]) -> str:
    """A duration as the server reads it: seconds, or a text such as ``1h30m``."""
    return seconds if isinstance(seconds, str) else f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def encode(value: Any) -> Dict[str, Any]:
    """A value on the wire: bytes as they are, everything else as JSON."""
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode()}
    return {"json": value}


def decode(data: Mapping[str, Any]) -> Any:
    """What :func:`encode` made."""
    return base64.b64decode(data["base64"]) if "base64" in data else data["json"]


class Backoff:
    """Waits longer after each failure, and never in step with others."""

    def __init__(self) -> None:
        self.bound = RETRY_FIRST

    def next(self) -> float:
        delay = random.uniform(self.bound / 2, self.bound)
        self.bound = min(2 * self.bound, RETRY_MAX)
        return delay


class Transport:
    """Calls a server. Each thread has a connection of its own."""

    def __init__(self, url: str, token: Optional[str]) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of a server such as http://127.0.0.1:7600")
        if parts.username or parts.password:
            raise ValueError("a URL of a server has no user and no password in it; give a token")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._parts = parts
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._local = threading.local()
        self._all: "weakref.WeakSet[http.client.HTTPConnection]" = weakref.WeakSet()

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=timeout)

    def close(self) -> None:
        """Closes this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def close_all(self) -> None:
        """Closes the connections of all threads, which must not be in use."""
        for connection in list(self._all):
            connection.close()

    def interrupt(self, connection: Optional[http.client.HTTPConnection]) -> None:
        """Has the call fail that another thread waits for on its connection."""
        sock = connection.sock if connection is not None else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # It has ended already.

    def connection(self) -> Optional[http.client.HTTPConnection]:
        """This thread's connection, for :meth:`interrupt`."""
        return getattr(self._local, "connection", None)

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: float = TIMEOUT,
    ) -> http.client.HTTPResponse:
        """Sends a request; the answer is to be read, or the connection closed."""
        payload = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        sent = {"Content-Type": "application/json", "Accept": "*/*", **self._headers, **(headers or {})}
        connection = self.connection()
        if connection is None:
            connection = self._local.connection = self._connect(timeout)
            self._all.add(connection)
        try:
            connection.timeout = timeout
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            connection.request(method, self._parts.path.rstrip("/") + path, payload, sent)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            why = str(error) or type(error).__name__
            raise Unreachable(f"cannot reach the server at {self.url}: {why}") from error
        if response.status >= 300:
            raise self._refused(response)
        return response

    def _refused(self, response: http.client.HTTPResponse) -> LtsError:
        try:
            problem = json.loads(response.read())
            code, detail = str(problem["code"]), str(problem["detail"])
        except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
            self.close()
            code, detail = "unknown", f"the server at {self.url} answers with the status {response.status}"
        if response.status in _TRY_AGAIN:
            return Unreachable(detail)
        return _ERRORS.get(code, ApiError)(response.status, code, detail)

    def read(self, response: http.client.HTTPResponse) -> bytes:
        """The whole answer."""
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(f"the server at {self.url} broke off its answer: {error}") from error

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: float = TIMEOUT,
    ) -> Any:
        """Sends a request and reads the answer."""
        data = self.read(self.open(method, path, body, headers, timeout))
        return json.loads(data) if data else None

    def events(self, path: str) -> Iterator[Tuple[str, Any]]:
        """The events of a stream, by name and data. It has a connection of its own."""
        stream = Transport(self.url, None)
        stream._headers = self._headers
        response = stream.open("GET", path, headers={"Accept": "text/event-stream"})
        name, data = "message", []
        try:
            for raw in response:
                line = raw.decode().rstrip("\r\n")
                if not line and data:
                    yield name, json.loads("\n".join(data))
                    name, data = "message", []
                elif line.startswith("event:"):
                    name = line[len("event:") :].strip()
                elif line.startswith("data:"):
                    data.append(line[len("data:") :].lstrip())
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the server at {self.url} broke off its answer: {error}") from error
        finally:
            response.close()
            stream.close()


def patiently(what: Any, patience: float) -> Any:
    """Repeats what fails because the server cannot be reached, for so many seconds."""
    until, backoff = time.monotonic() + patience, Backoff()
    while True:
        try:
            return what()
        except Unreachable:
            if time.monotonic() >= until:
                raise
            time.sleep(backoff.next())
