"""ASGI middleware: a request or a WebSocket passes only with a token that Auth has just validated, and with the roles
and the scope that it needs."""

from __future__ import annotations

from typing import Any, Awaitable, Callable, Iterable, MutableMapping, NamedTuple

from .bearer import invalid_token, read_bearer_token, read_request_id, read_traceparent
from .client import AuthClient
from .contract import Admission
from .errors import TokenError
from .rules import Kind, Rule, Shadow

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# RFC 6455, section 7.4.1, and the registry of IANA.
_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013
# Where guards find what another has seen. Not `auth`, which other middleware may set.
_SEEN = "latchkey.seen"


class _Seen(NamedTuple):
    client: AuthClient
    admission: Admission
    request_id: str


class RequireToken:
    """``RequireToken(app)`` or, with options, ``RequireToken(app, AuthClient(url, key))``.

    Sets ``scope["auth"]`` to the ``Admission`` of the token. Answers other requests with 400, 401, 429 or 503 in
    ``application/problem+json``. Refuses other WebSockets in the same way if the server can answer them (the extension
    ``websocket.http.response``); otherwise it closes them before they open, which the server reports as 403. The client
    is closed when the application shuts down.
    """

    def __init__(self, app: Application, client: AuthClient | None = None) -> None:
        self._app = app
        self._client = client if client is not None else AuthClient()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._close_at_shutdown(send))
            return
        if scope["type"] not in ("http", "websocket"):
            raise RuntimeError(f"RequireToken knows no requests of type {scope['type']!r}, so it does not admit them.")
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        request_id = read_request_id(headers)
        # The header `token` does not keep shared caches from storing a response, as Authorization does (RFC 9111,
        # section 3.5).
        added = [(b"cache-control", b"no-store"), (b"x-request-id", request_id.encode())]
        try:
            token = read_bearer_token(headers)
            validation = await self._client.validate(token, request_id, read_traceparent(headers))
            if validation.admission is None:
                raise invalid_token()
        except TokenError as error:
            await _refuse(scope, receive, send, error, error.problem(request_id), added)
            return
        added.append((b"server-timing", validation.server_timing.encode()))
        seen = _Seen(self._client, validation.admission, request_id)
        await self._app({**scope, "auth": validation.admission, _SEEN: seen}, receive, _with_headers(send, added))

    def _close_at_shutdown(self, send: Send) -> Send:
        async def send_and_close(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self._client.close()
            await send(message)

        return send_and_close


class _RequireRule:
    """Uses the verdict of a guard in front, or with a client of its own asks for one."""

    def __init__(
        self, app: Application, kind: Kind, names: tuple[str, ...], client: AuthClient | None, shadow: Shadow | None
    ) -> None:
        self._app = app
        self._rule = Rule(kind, names)
        self._client = client
        self._shadow = shadow
        self._alone = None if client is None else RequireToken(self._check, client)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen: _Seen | None = scope.get(_SEEN)
        if self._alone is not None and (seen is None or seen.client is not self._client):
            await self._alone(scope, receive, send)
        else:
            await self._check(scope, receive, send)

    async def _check(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if _SEEN not in scope:
            raise RuntimeError("A rule needs RequireToken in front of it, or a client of its own.")
        seen: _Seen = scope[_SEEN]
        try:
            self._rule.enforce(seen.admission, seen.request_id, self._shadow)
        except TokenError as error:
            # The guard that asked adds the other headers.
            await _refuse(scope, receive, send, error, error.problem(seen.request_id), [])
            return
        await self._app(scope, receive, send)


class RequireRole(_RequireRule):
    """``RequireRole(app, "admin")`` behind ``RequireToken``, or alone with ``client=AuthClient(url, key)``.

    A request passes only if its user has this role, or all of several; others are 403. Behind another guard it uses the
    same verdict. With ``shadow=count`` it refuses nothing, and calls ``count`` with a ``ShadowRefusal`` instead.
    """

    def __init__(
        self, app: Application, *names: str, client: AuthClient | None = None, shadow: Shadow | None = None
    ) -> None:
        super().__init__(app, "role", names, client, shadow)


class RequireScope(_RequireRule):
    """As ``RequireRole``, for the scope of the token. A session has no scope of its own, and is admitted."""

    def __init__(
        self, app: Application, *names: str, client: AuthClient | None = None, shadow: Shadow | None = None
    ) -> None:
        super().__init__(app, "scope", names, client, shadow)


def _with_headers(send: Send, added: Iterable[tuple[bytes, bytes]]) -> Send:
    """Headers that the application sets itself stay as they are."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
            own = list(message.get("headers", []))
            names = {name.lower() for name, _ in own}
            message = {**message, "headers": [*own, *(pair for pair in added if pair[0] not in names)]}
        await send(message)

    return send_with_headers


async def _refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    error: TokenError,
    body: bytes,
    added: list[tuple[bytes, bytes]],
) -> None:
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in error.headers.items()),
        *added,
    ]
    prefix = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            code = _TRY_AGAIN_LATER if error.code in ("unavailable", "too_many_requests") else _POLICY_VIOLATION
            await send({"type": "websocket.close", "code": code, "reason": error.code})
            return
        prefix = "websocket.http.response"
    await send({"type": f"{prefix}.start", "status": error.status, "headers": headers})
    await send({"type": f"{prefix}.body", "body": body})
