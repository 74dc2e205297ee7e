"""The client for code without an event loop: a blocking ``validate``, and WSGI middleware.

Hides the thread on which the event loop runs; requests of all threads of the process share its calls."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from http import HTTPStatus
from typing import Any, Callable, Iterable, NamedTuple

from .bearer import invalid_token, read_bearer_token, read_request_id, read_traceparent
from .client import AuthClient, Validation
from .contract import Admission
from .errors import TokenError
from .rules import Kind, Rule, Shadow

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

# Where guards find what another has seen.
_SEEN = "latchkey.seen"


class SyncAuthClient:
    """Takes the arguments of ``AuthClient``. Safe to use from any thread, and before and after a fork."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._arguments = (args, options)
        self._make()  # raises at once if an argument is wrong
        self._lock = threading.Lock()
        self._running: tuple[asyncio.AbstractEventLoop, AuthClient, threading.Thread] | None = None
        # A thread does not survive a fork, and a lock that was held then would stay locked.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def validate(self, token: str, request_id: str = "", traceparent: str | None = None) -> Validation:
        """As ``AuthClient.validate``, but blocks."""
        loop, client, _ = self._start()
        return asyncio.run_coroutine_threadsafe(client.validate(token, request_id, traceparent), loop).result()

    def close(self) -> None:
        """Waits for the calls in flight. A process ends without it too."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            loop, client, thread = running
            asyncio.run_coroutine_threadsafe(client.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _make(self) -> AuthClient:
        args, options = self._arguments
        return AuthClient(*args, **options)

    def _start(self) -> tuple[asyncio.AbstractEventLoop, AuthClient, threading.Thread]:
        with self._lock:
            if self._running is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="latchkey_client", daemon=True)
                thread.start()
                self._running = (loop, self._make(), thread)
            return self._running

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._running = None


class _Seen(NamedTuple):
    client: SyncAuthClient
    admission: Admission
    request_id: str


class RequireTokenWsgi:
    """``RequireTokenWsgi(app)`` or, with options, ``RequireTokenWsgi(app, SyncAuthClient(url, key))``.

    Sets ``environ["latchkey.auth"]`` to the ``Admission`` of the token. Answers other requests with 400, 401, 429 or
    503 in ``application/problem+json``.
    """

    def __init__(self, app: Application, client: SyncAuthClient | None = None) -> None:
        self._app = app
        self._client = client if client is not None else SyncAuthClient()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        headers = list(_headers_of(environ))
        request_id = read_request_id(headers)
        added = [("Cache-Control", "no-store"), ("X-Request-Id", request_id)]
        try:
            token = read_bearer_token(headers)
            validation = self._client.validate(token, request_id, read_traceparent(headers))
            if validation.admission is None:
                raise invalid_token()
        except TokenError as error:
            return _refuse(start_response, error, request_id, added)
        added.append(("Server-Timing", validation.server_timing))

        def start_with_headers(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            names = {name.lower() for name, _ in headers}
            return start_response(status, [*headers, *(pair for pair in added if pair[0].lower() not in names)], *more)

        environ["latchkey.auth"] = validation.admission
        environ[_SEEN] = _Seen(self._client, validation.admission, request_id)
        return self._app(environ, start_with_headers)


class _RequireRuleWsgi:
    """Uses the verdict of a guard in front, or with a client of its own asks for one."""

    def __init__(
        self, app: Application, kind: Kind, names: tuple[str, ...], client: SyncAuthClient | None, shadow: Shadow | None
    ) -> None:
        self._app = app
        self._rule = Rule(kind, names)
        self._client = client
        self._shadow = shadow
        self._alone = None if client is None else RequireTokenWsgi(self._check, client)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen: _Seen | None = environ.get(_SEEN)
        if self._alone is not None and (seen is None or seen.client is not self._client):
            return self._alone(environ, start_response)
        return self._check(environ, start_response)

    def _check(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if _SEEN not in environ:
            raise RuntimeError("A rule needs RequireTokenWsgi in front of it, or a client of its own.")
        seen: _Seen = environ[_SEEN]
        try:
            self._rule.enforce(seen.admission, seen.request_id, self._shadow)
        except TokenError as error:
            # The guard that asked adds the other headers.
            return _refuse(start_response, error, seen.request_id, [])
        return self._app(environ, start_response)


class RequireRoleWsgi(_RequireRuleWsgi):
    """``RequireRoleWsgi(app, "admin")`` behind ``RequireTokenWsgi``, or alone with ``client=SyncAuthClient(url, key)``.

    The same as ``RequireRole``.
    """

    def __init__(
        self, app: Application, *names: str, client: SyncAuthClient | None = None, shadow: Shadow | None = None
    ) -> None:
        super().__init__(app, "role", names, client, shadow)


class RequireScopeWsgi(_RequireRuleWsgi):
    """The same as ``RequireScope``."""

    def __init__(
        self, app: Application, *names: str, client: SyncAuthClient | None = None, shadow: Shadow | None = None
    ) -> None:
        super().__init__(app, "scope", names, client, shadow)


def _refuse(
    start_response: StartResponse, error: TokenError, request_id: str, added: list[tuple[str, str]]
) -> Iterable[bytes]:
    body = error.problem(request_id)
    own = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body)))]
    start_response(f"{error.status} {HTTPStatus(error.status).phrase}", [*own, *error.headers.items(), *added])
    return [body]


def _headers_of(environ: Environ) -> Iterable[tuple[bytes, bytes]]:
    """WSGI servers join headers of the same name. Splitting them again finds two tokens; a token contains no comma."""
    for name, separator in (
        ("authorization", r",\s*(?=[\w-]+ )"),
        ("token", r",\s*"),
        ("x-request-id", None),
        ("traceparent", None),
    ):
        value = environ.get(f"HTTP_{name.upper().replace('-', '_')}")
        if value is not None:
            for one in re.split(separator, value) if separator else [value]:
                yield name.encode(), one.encode("latin-1")
