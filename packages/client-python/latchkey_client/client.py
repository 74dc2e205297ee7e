"""Asks Auth for verdicts. Requests that arrive together share one call; every verdict is computed after its request
arrived; nothing is cached or repeated. Hides batching, deadlines and the checks of Auth's answer."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import ssl
from collections import deque
from dataclasses import dataclass

from .contract import (
    MAX_TOKENS_PER_CALL,
    MAX_VERDICT_BYTES,
    VALIDATE_TOKEN_PATH,
    Admission,
    Limitation,
    Unavailable,
    parse_verdicts,
)
from .errors import TokenError, beyond_limit
from .exchange import Connections

_JSON = re.compile(r"application/json\s*(;|$)")
_KEY = re.compile(r"[\x21-\x7e]+")
_UNUSUAL = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class Validation:
    """A verdict, and the timing of the call that produced it."""

    #: None if the token is unknown, expired or revoked.
    admission: Admission | None
    #: Value for a ``Server-Timing`` header: how long Auth took, a name for the call, and how many requests shared it.
    server_timing: str


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request that waits for its verdict."""

    token: str
    request_id: str
    traceparent: str | None
    deadline_at: float
    result: asyncio.Future[Validation]
    #: The call that asks for it, once there is one.
    call: _Call | None = None


@dataclass(slots=True, eq=False)
class _Call:
    waiters: list[_Waiter]
    task: asyncio.Task[None] | None = None


class AuthClient:
    """Create one per process and event loop. ``url`` and ``key`` default to AUTH_INTERNAL_URL and SERVICE_KEY.

    ``deadline`` is the maximum time in seconds from a request's arrival to its verdict or its error, including the wait
    for a free call. At most ``max_calls`` calls are in flight, with at most ``max_batch`` tokens each; more than
    ``max_waiting`` waiting requests fail at once. ``log`` gets one line when verdicts stop and one when they resume.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        deadline: float = 1.0,
        max_calls: int = 2,
        max_batch: int = MAX_TOKENS_PER_CALL - 1,  # 255 tokens of maximum length fit in the 512 KB that Auth accepts
        max_waiting: int = 10_000,
        ssl_context: ssl.SSLContext | None = None,
        log: logging.Logger = logging.getLogger("latchkey_client"),
    ) -> None:
        key = key if key is not None else os.environ.get("SERVICE_KEY", "")
        if not _KEY.fullmatch(key):
            raise ValueError(
                "The service key is missing or malformed. Pass key, or set SERVICE_KEY to the key that Auth was started"
                " with."
            )
        if not 1 <= max_batch <= MAX_TOKENS_PER_CALL - 1:
            raise ValueError(f"max_batch must be from 1 to {MAX_TOKENS_PER_CALL - 1}; got {max_batch}.")
        if deadline <= 0 or max_calls < 1 or max_waiting < 1:
            raise ValueError("deadline, max_calls and max_waiting must be above 0.")
        url = url or os.environ.get("AUTH_INTERNAL_URL") or "http://127.0.0.1:3101"
        self._connections = Connections(url, ssl_context)
        self._key = key
        self._deadline = deadline
        self._max_calls = max_calls
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._outage = _OutageLog(log)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[_Waiter] = deque()
        #: Every request whose deadline has not passed, oldest first, also those that have their verdict.
        self._watched: deque[_Waiter] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._in_flight: set[_Call] = set()
        self._is_send_scheduled = False
        self._is_closed = False
        self._call_count = 0

    async def validate(self, token: str, request_id: str = "", traceparent: str | None = None) -> Validation:
        """Returns a verdict that Auth computed after ``validate`` was called.

        Raises a ``TokenError`` with the code ``unavailable`` if Auth gives none within the deadline. In Auth's log, the
        id of the call begins with ``request_id``.
        """
        loop = self._bind_loop()
        if len(self._waiting) >= self._max_waiting:
            raise self._outage.no_verdict(RuntimeError(f"{self._max_waiting} requests are already waiting"))
        deadline_at = loop.time() + self._deadline
        waiter = _Waiter(token, request_id, traceparent, deadline_at, loop.create_future())
        self._waiting.append(waiter)
        self._watched.append(waiter)
        if self._watch is None:
            self._watch = loop.call_at(deadline_at, self._end_late)
        self._schedule_send(loop)
        return await waiter.result

    async def close(self) -> None:
        """Waits for the calls in flight, and closes the connections."""
        self._is_closed = True
        while self._in_flight or self._waiting:
            tasks = [call.task for call in self._in_flight if call.task is not None]
            # If there is no call yet, the next turn of the event loop sends it.
            await (asyncio.wait(tasks) if tasks else asyncio.sleep(0))
        if self._watch is not None:
            self._watch.cancel()
        self._connections.close()

    def _bind_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._is_closed:
            raise RuntimeError("This AuthClient is closed.")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("This AuthClient belongs to another event loop. Create one per event loop.")
        return loop

    def _schedule_send(self, loop: asyncio.AbstractEventLoop) -> None:
        """A call is sent in the next turn of the event loop, with every request that has arrived by then.

        A request that arrives alone is therefore sent alone, without delay.
        """
        if not self._is_send_scheduled and len(self._in_flight) < self._max_calls:
            self._is_send_scheduled = True
            loop.call_soon(self._send_waiting)

    def _send_waiting(self) -> None:
        self._is_send_scheduled = False
        while self._waiting and len(self._in_flight) < self._max_calls:
            waiters: list[_Waiter] = []
            while self._waiting and len(waiters) < self._max_batch:
                waiter = self._waiting.popleft()
                if not waiter.result.done():  # its deadline has not passed, and its request has not been cancelled
                    waiters.append(waiter)
            if not waiters:
                return
            call = _Call(waiters)
            for waiter in waiters:
                waiter.call = call
            self._in_flight.add(call)
            call.task = asyncio.get_running_loop().create_task(self._send(call))

    async def _send(self, call: _Call) -> None:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        verdicts: list[Admission | Limitation | Unavailable | None] = []
        failure: BaseException | None = None
        try:
            verdicts = await self._ask(call)
        except asyncio.CancelledError:
            failure = TimeoutError(f"Auth did not answer within {self._deadline} s")
        except Exception as error:  # whatever it is: there is no verdict
            failure = error
        self._in_flight.discard(call)
        # Send the next call before answering the requests of this one, so that Auth is not idle meanwhile.
        self._send_waiting()
        if failure is None:
            self._outage.end()
        milliseconds = (loop.time() - started_at) * 1000
        timing = f'auth;dur={milliseconds:.2f};desc="call {_draw_call_name()} shared by {len(call.waiters)}"'
        for i, waiter in enumerate(call.waiters):
            if waiter.result.done():
                continue
            if failure is not None:
                waiter.result.set_exception(self._outage.no_verdict(failure))
                continue
            verdict = verdicts[i]
            if isinstance(verdict, Unavailable):
                # Not logged as an outage: Auth answers, and logs which part of its store does not.
                waiter.result.set_exception(_no_verdict())
            elif isinstance(verdict, Limitation):
                waiter.result.set_exception(beyond_limit(verdict.retry_after_ms))
            else:
                waiter.result.set_result(Validation(verdict, timing))

    async def _ask(self, call: _Call) -> list[Admission | Limitation | Unavailable | None]:
        first, count = call.waiters[0], len(call.waiters)
        self._call_count += 1
        # The id begins with that of the first request and is unique, so its echo proves that the answer belongs to this
        # call. Auth echoes only ids of these characters.
        call_id = f"{_UNUSUAL.sub('_', first.request_id[:48])}.{self._call_count}"
        body = json.dumps({"tokens": [waiter.token for waiter in call.waiters]}, separators=(",", ":")).encode()
        lines = [
            f"POST {VALIDATE_TOKEN_PATH} HTTP/1.1",
            f"Host: {self._connections.authority}",
            f"Authorization: Bearer {self._key}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"X-Request-Id: {call_id}",
            *([f"Traceparent: {first.traceparent}"] if first.traceparent else []),
        ]
        request = "\r\n".join([*lines, "", ""]).encode("ascii") + body
        answer = await self._connections.exchange(request, MAX_VERDICT_BYTES * (count + 1))
        if answer.status != 200:
            raise ValueError(f"Auth answered {answer.status}")
        if not _JSON.match(answer.headers.get("content-type", "")):
            raise ValueError("Auth did not answer in JSON")
        if answer.headers.get("x-request-id") != call_id:
            raise ValueError("Auth answered another request")
        return parse_verdicts(answer.body, count)

    def _end_late(self) -> None:
        """Ends the requests whose deadline has passed, and a call once that of its last request has."""
        assert self._loop is not None
        now = self._loop.time()
        while self._watched and (self._watched[0].result.done() or self._watched[0].deadline_at <= now):
            waiter = self._watched.popleft()
            call = waiter.call
            if call is not None and waiter is call.waiters[-1] and call.task is not None and call in self._in_flight:
                if waiter.deadline_at <= now:
                    call.task.cancel()
                elif waiter.result.done():  # cancelled, but the others still wait for this call
                    self._loop.call_at(waiter.deadline_at, call.task.cancel)
            if not waiter.result.done():
                reason = "no call was free" if call is None else "Auth did not answer"
                late = TimeoutError(f"{reason} within {self._deadline} s")
                waiter.result.set_exception(self._outage.no_verdict(late))
        while self._waiting and self._waiting[0].result.done():
            self._waiting.popleft()
        self._watch = self._loop.call_at(self._watched[0].deadline_at, self._end_late) if self._watched else None


def _no_verdict() -> TokenError:
    return TokenError("unavailable", "Auth gave no verdict; try again.", {"Retry-After": "1"})


class _OutageLog:
    """Logs once when verdicts stop and once when they resume, so that an outage does not fill the disk."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._failed_requests = 0

    def no_verdict(self, cause: BaseException) -> TokenError:
        if self._failed_requests == 0:
            self._log.warning("auth_unavailable: %s", cause or type(cause).__name__)
        self._failed_requests += 1
        return _no_verdict()

    def end(self) -> None:
        if self._failed_requests > 0:
            self._log.info("auth_recovered: %d requests got no verdict", self._failed_requests)
        self._failed_requests = 0


def _draw_call_name() -> str:
    """Random, because a counter would show clients how busy Auth is."""
    return f"{random.getrandbits(32):x}"
