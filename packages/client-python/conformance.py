"""The adapter of latchkey_client for `npm run conformance`: reads and writes lines of JSON.

With --wsgi it asks the WSGI middleware instead of the ASGI middleware. --patient lets it wait longer than the default
deadline, for machines that run other tests at the same time."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from latchkey_client import (
    AuthClient,
    RequireRole,
    RequireRoleWsgi,
    RequireScope,
    RequireScopeWsgi,
    RequireToken,
    RequireTokenWsgi,
    SyncAuthClient,
)

Answer = dict[str, Any]

DEADLINE = 3.0 if "--patient" in sys.argv else 1.0  # seconds


def compose(status: int, headers: dict[str, str], body: bytes) -> Answer:
    return {"status": status, "headers": headers, "admission" if status == 200 else "problem": json.loads(body)}


def guard(show: Any, client: Any, needs: list[Any], classes: tuple[Any, Any, Any]) -> Any:
    """The application behind a guard for each need, the first in front, or behind one that needs a token."""
    require_token, require_role, require_scope = classes
    if not needs:
        return require_token(show, client)
    app = show
    for need in reversed(needs):
        make = require_role if "role" in need else require_scope
        shadow = (lambda refusal: None) if "shadow" in need else None
        app = make(app, *need.get("role", need.get("scope")), client=client, shadow=shadow)
    return app


class AsgiClient:
    def __init__(self, url: str, key: str) -> None:
        self._client = AuthClient(url, key, deadline=DEADLINE)

    async def answer_to(self, lines: list[list[str]], needs: list[Any]) -> Answer:
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in lines]
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        app = guard(self._show, self._client, needs, (RequireToken, RequireRole, RequireScope))
        await app({"type": "http", "method": "GET", "path": "/", "headers": headers}, receive, send)
        start, body = sent
        return compose(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, body["body"])

    async def close(self) -> None:
        await self._client.close()

    @staticmethod
    async def _show(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(dict(scope["auth"].members)).encode()})


class WsgiClient:
    def __init__(self, url: str, key: str) -> None:
        self._client = SyncAuthClient(url, key, deadline=DEADLINE)

    async def answer_to(self, lines: list[list[str]], needs: list[Any]) -> Answer:
        environ: dict[str, Any] = {}
        for name, value in lines:
            variable = f"HTTP_{name.upper().replace('-', '_')}"
            environ[variable] = f"{environ[variable]},{value}" if variable in environ else value
        return await asyncio.to_thread(self._ask, environ, needs)

    def _ask(self, environ: dict[str, Any], needs: list[Any]) -> Answer:
        app = guard(self._show, self._client, needs, (RequireTokenWsgi, RequireRoleWsgi, RequireScopeWsgi))
        started: list[Any] = []
        body = b"".join(app(environ, lambda *start: started.append(start)))
        [(status, headers)] = started
        return compose(int(status[:3]), {name.lower(): value for name, value in headers}, body)

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    @staticmethod
    def _show(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [json.dumps(dict(environ["latchkey.auth"].members)).encode()]


def write(line: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(line)}\n")
    sys.stdout.flush()


async def main() -> None:
    make: type[AsgiClient] | type[WsgiClient] = WsgiClient if "--wsgi" in sys.argv else AsgiClient
    client: AsgiClient | WsgiClient | None = None
    tasks: set[asyncio.Task[None]] = set()

    async def answer(client: AsgiClient | WsgiClient, request: Any) -> None:
        write({"id": request["id"], **await client.answer_to(request["headers"], request.get("needs", []))})

    while line := await asyncio.to_thread(sys.stdin.readline):
        message = json.loads(line)
        if "open" in message:
            if client is not None:
                await client.close()
            client = make(**message["open"])
            write({"opened": True})
            continue
        assert client is not None
        for request in message["send"]:
            task = asyncio.create_task(answer(client, request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    if client is not None:
        await client.close()


logging.basicConfig(level=logging.INFO)
asyncio.run(main())
