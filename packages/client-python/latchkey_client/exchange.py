"""HTTP/1.1 with Auth: kept connections, one request at a time on each. Hides framing, limits and stale connections.

Nothing is repeated: if a connection breaks, its call fails. Only what the call needs is understood; everything else in
an answer is an error.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass, field
from typing import Callable
from urllib.parse import urlsplit

_MAX_HEAD_BYTES = 16 * 1024
_MAX_CHUNK_LINE_BYTES = 1024
# How long a connection may have been idle before it is used again, if Auth does not say how long it keeps one.
_KEEP_ALIVE_SECONDS = 4.0
_MAX_KEEP_ALIVE_SECONDS = 600.0

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n\0]*)?")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n\0]*)?")
_KEEP_ALIVE = re.compile(r"timeout=([0-9]{1,9})\b")


class ExchangeError(Exception):
    """Auth gave no answer that can be understood."""


@dataclass(slots=True)
class Answer:
    status: int
    #: Names are in lower case; the values of headers that occur twice are joined with ", ".
    headers: dict[str, str]
    body: bytes = b""


class Connections:
    """The connections to one address. ``exchange`` uses an idle one, or opens one."""

    def __init__(self, url: str, ssl_context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"The URL of Auth must begin with http:// or https:// and name a host; got {url!r}.")
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
            raise ValueError("The URL of Auth must consist of a scheme, a host and a port only.")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = (ssl_context or ssl.create_default_context()) if parts.scheme == "https" else None
        #: The value of the header Host.
        self.authority = parts.netloc
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def exchange(self, request: bytes, max_body_bytes: int) -> Answer:
        """Sends the bytes of a request and returns the answer. If it is cancelled, the connection is closed."""
        connection = self._take_idle() or await self._connect()
        answer = await connection.exchange(request, max_body_bytes)
        if connection.is_reusable:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        for connection in list(self._open):
            connection.close()

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and not connection.is_stale():
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(loop, self._open), self._host, self._port, ssl=self._ssl
        )
        return connection


@dataclass(slots=True)
class _Reading:
    """An answer of which not all bytes have arrived."""

    done: asyncio.Future[Answer]
    max_body_bytes: int
    #: Reads what it can from the buffer; False if it needs more bytes.
    step: Callable[[_Reading], bool]
    head_bytes: int = 0
    answer: Answer = field(default_factory=lambda: Answer(0, {}))
    body: bytearray = field(default_factory=bytearray)
    #: Bytes of the body, or of the current chunk, that are missing.
    missing: int = 0
    closes: bool = False


class _Connection(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop, opened: set[_Connection]) -> None:
        self._loop = loop
        self._opened = opened
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._reading: _Reading | None = None
        self._idle_since = 0.0
        self._keep_alive = _KEEP_ALIVE_SECONDS

    @property
    def is_reusable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and self._reading is None

    def is_stale(self) -> bool:
        return self._loop.time() - self._idle_since > self._keep_alive

    async def exchange(self, request: bytes, max_body_bytes: int) -> Answer:
        if self._transport is None or self._transport.is_closing():
            raise ExchangeError("the connection was closed before the request was sent")
        reading = _Reading(self._loop.create_future(), max_body_bytes, self._read_head)
        self._reading = reading
        self._transport.write(request)
        try:
            return await reading.done
        except asyncio.CancelledError:
            self._abort()
            raise

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._opened.add(self)

    def data_received(self, data: bytes) -> None:
        reading = self._reading
        if reading is None:
            self._abort()  # an answer that no call has asked for
            return
        self._buffer += data
        try:
            while reading.step(reading):
                pass
        except ExchangeError as error:
            self._fail(error)

    def eof_received(self) -> None:
        reading = self._reading
        if reading is not None and reading.step == self._read_until_close:
            self._finish(reading)
        else:
            self._fail(ExchangeError("Auth closed the connection before the end of its answer"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.discard(self)
        self._fail(ExchangeError(f"the connection to Auth was lost: {exc or 'closed'}"))
        self._transport = None

    # Each of these returns True if the next step can go on at once.

    def _read_head(self, reading: _Reading) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        # Interim answers count too, because there may be any number of them.
        if reading.head_bytes + (len(self._buffer) if end < 0 else end) > _MAX_HEAD_BYTES:
            raise ExchangeError(f"the head of Auth's answer has more than {_MAX_HEAD_BYTES} bytes")
        if end < 0:
            return False
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        reading.head_bytes += end + 4
        status_line = _STATUS_LINE.fullmatch(lines[0])
        if status_line is None:
            raise ExchangeError("Auth did not answer in HTTP/1.1")
        status = int(status_line[2])
        if status == 101:
            raise ExchangeError("Auth switched the protocol")
        if status < 200:
            return True  # an interim answer: the next head follows (RFC 9110, section 15.2)
        headers = _parse_headers(lines[1:])
        connection = [option.strip().lower() for option in headers.get("connection", "").split(",")]
        reading.answer = Answer(status, headers)
        reading.closes = "close" in connection or status_line[1] == b"0"
        keep_alive = _KEEP_ALIVE.search(headers.get("keep-alive", ""))
        if keep_alive is not None:
            self._keep_alive = min(int(keep_alive[1]) - 1.0, _MAX_KEEP_ALIVE_SECONDS)
        self._choose_framing(reading)
        return True

    def _choose_framing(self, reading: _Reading) -> None:
        """RFC 9112, section 6.3."""
        status, headers = reading.answer.status, reading.answer.headers
        length, coding = headers.get("content-length"), headers.get("transfer-encoding")
        if status in (204, 304):
            reading.step = self._read_body
        elif coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise ExchangeError("Auth framed its answer in a way that is not understood")
            reading.step = self._read_chunk_line
        elif length is not None:
            if not length.isascii() or not length.isdigit():
                raise ExchangeError("the Content-Length of Auth's answer is not a number")
            reading.missing = int(length)
            self._limit(reading, reading.missing)
            reading.step = self._read_body
        else:
            reading.step = self._read_until_close

    def _read_body(self, reading: _Reading) -> bool:
        if len(self._buffer) < reading.missing:
            return False
        self._take(reading, reading.missing)
        self._finish(reading)
        return False

    def _read_chunk_line(self, reading: _Reading) -> bool:
        line = self._take_line()
        if line is None:
            return False
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ExchangeError("a chunk of Auth's answer has no length")
        reading.missing = int(match[1], 16)
        self._limit(reading, len(reading.body) + reading.missing)
        reading.step = self._read_chunk if reading.missing > 0 else self._read_trailer
        return True

    def _read_chunk(self, reading: _Reading) -> bool:
        if len(self._buffer) < reading.missing + 2:
            return False
        self._take(reading, reading.missing)
        if self._buffer[:2] != b"\r\n":
            raise ExchangeError("a chunk of Auth's answer is longer than announced")
        del self._buffer[:2]
        reading.step = self._read_chunk_line
        return True

    def _read_trailer(self, reading: _Reading) -> bool:
        line = self._take_line()
        if line is None:
            return False
        reading.head_bytes += len(line)
        if reading.head_bytes > _MAX_HEAD_BYTES:
            raise ExchangeError("the trailer of Auth's answer is too large")
        if line != b"":
            return True
        self._finish(reading)
        return False

    def _read_until_close(self, reading: _Reading) -> bool:
        self._limit(reading, len(reading.body) + len(self._buffer))
        self._take(reading, len(self._buffer))
        return False

    def _take(self, reading: _Reading, count: int) -> None:
        reading.body += self._buffer[:count]
        del self._buffer[:count]

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end > _MAX_CHUNK_LINE_BYTES or (end < 0 and len(self._buffer) > _MAX_CHUNK_LINE_BYTES):
            raise ExchangeError("a line within Auth's answer is too long")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    @staticmethod
    def _limit(reading: _Reading, size: int) -> None:
        if size > reading.max_body_bytes:
            raise ExchangeError(f"Auth answered with more than {reading.max_body_bytes} bytes")

    def _finish(self, reading: _Reading) -> None:
        if self._buffer:
            raise ExchangeError("more bytes follow Auth's answer")
        reading.answer.body = bytes(reading.body)
        self._reading = None
        self._idle_since = self._loop.time()
        if reading.closes or reading.step == self._read_until_close:
            self.close()
        if not reading.done.done():
            reading.done.set_result(reading.answer)

    def _fail(self, error: ExchangeError) -> None:
        reading, self._reading = self._reading, None
        self._abort()
        if reading is not None and not reading.done.done():
            reading.done.set_exception(error)

    def _abort(self) -> None:
        self._reading = None
        if self._transport is not None:
            self._transport.abort()


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            raise ExchangeError("a header of Auth's answer is malformed")
        name, value = match[1].decode().lower(), match[2].decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
