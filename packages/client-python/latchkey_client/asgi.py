"""ASGI middleware: a request or a WebSocket passes only with a token that Auth has just validated."""

from __future__ import annotations

from typing import Any, Awaitable, Callable, Iterable, MutableMapping

from .bearer import invalid_token, read_bearer_token, read_request_id, read_traceparent
from .client import AuthClient
from .errors import TokenError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# RFC 6455, section 7.4.1, and the registry of IANA.
_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013


class RequireToken:
    """``RequireToken(app)`` or, with options, ``RequireToken(app, AuthClient(url, key))``.

    Sets ``scope["auth"]`` to the ``Admission`` of the token. Answers other requests with 400, 401 or 503 in
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
        await self._app({**scope, "auth": validation.admission}, receive, _with_headers(send, added))

    def _close_at_shutdown(self, send: Send) -> Send:
        async def send_and_close(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self._client.close()
            await send(message)

        return send_and_close


def _with_headers(send: Send, added: Iterable[tuple[bytes, bytes]]) -> Send:
    """Headers that the application sets itself stay as they are."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
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
            code = _TRY_AGAIN_LATER if error.code == "unavailable" else _POLICY_VIOLATION
            await send({"type": "websocket.close", "code": code, "reason": error.code})
            return
        prefix = "websocket.http.response"
    await send({"type": f"{prefix}.start", "status": error.status, "headers": headers})
    await send({"type": f"{prefix}.body", "body": body})
