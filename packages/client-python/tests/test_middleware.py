"""The middleware where no vector reaches it: WebSockets, lifespan, added headers, cancelled requests, forks."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import unittest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from latchkey_client import (  # noqa: E402
    Actor,
    Admission,
    AuthClient,
    RequireRole,
    RequireRoleWsgi,
    RequireScope,
    RequireScopeWsgi,
    RequireToken,
    RequireTokenWsgi,
    ShadowRefusal,
    SyncAuthClient,
    TokenError,
    require_role,
    require_scope,
)

KEY = "k" * 32
ADMISSION = {
    "authenticated": True,
    "tokenId": "id",
    "kind": "sliding",
    "username": "ann",
    "userId": "1",
    "createdAt": 1,
    "expiresAt": 2,
    "absoluteExpiresAt": 3,
    "refreshCount": 1,
    "roles": ["editor"],
    "scope": "orders:read",
}


class FakeAuth:
    """Admits tokens that begin with "good". Answers only while `answering` is set."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        #: Members of each admission, in place of those of ADMISSION or beside them.
        self.changes: dict[str, Any] = {}
        self.called = asyncio.Event()
        self.answering = asyncio.Event()
        self.answering.set()

    async def __aenter__(self) -> FakeAuth:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = "http://127.0.0.1:%d" % self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
                tokens = json.loads(await reader.readexactly(int(fields["Content-Length"])))["tokens"]
                self.calls.append(tokens)
                self.called.set()
                await self.answering.wait()
                admission = {**ADMISSION, **self.changes}
                verdicts = [admission if token.startswith("good") else {"authenticated": False} for token in tokens]
                body = json.dumps({"verdicts": verdicts})
                writer.write(
                    f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: {fields['X-Request-Id']}\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def greet(scope: Any, _receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    own = [(b"cache-control", b"private")] if scope["path"] == "/own" else []
    await send({"type": "http.response.start", "status": 200, "headers": own})
    await send({"type": "http.response.body", "body": scope["auth"].username.encode()})


async def ask(app: RequireToken, *headers: tuple[bytes, bytes], **scope: Any) -> list[Any]:
    """The messages that the middleware sends."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await app({"type": "http", "path": "/", "headers": headers, **scope}, receive, send)
    return sent


GOOD = (b"authorization", b"Bearer good")
BAD = (b"token", b"bad")


class RequireTokenTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.auth = await self.enterAsyncContext(FakeAuth())
        self.client = AuthClient(self.auth.url, KEY)
        self.app = RequireToken(greet, self.client)
        self.addAsyncCleanup(self.client.close)

    async def test_a_live_token_opens_a_websocket(self) -> None:
        [accepted] = await ask(self.app, GOOD, type="websocket")
        self.assertEqual(accepted["type"], "websocket.accept")
        self.assertIn((b"cache-control", b"no-store"), accepted["headers"])

    async def test_a_websocket_is_refused_with_the_answer_if_the_server_can_send_it(self) -> None:
        start, body = await ask(self.app, BAD, type="websocket", extensions={"websocket.http.response": {}})
        self.assertEqual((start["type"], start["status"]), ("websocket.http.response.start", 401))
        self.assertIn((b"www-authenticate", b'Bearer realm="latchkey", error="invalid_token"'), start["headers"])
        self.assertEqual(json.loads(body["body"])["error"], "invalid_token")

    async def test_a_websocket_is_closed_before_it_opens_otherwise(self) -> None:
        self.assertEqual(
            await ask(self.app, BAD, type="websocket"),
            [{"type": "websocket.close", "code": 1008, "reason": "invalid_token"}],
        )

    async def test_an_outage_closes_a_websocket_with_another_code(self) -> None:
        async with FakeAuth() as gone:
            client = AuthClient(gone.url, KEY)
        with self.assertLogs("latchkey_client", "WARNING") as log:
            [closed] = await ask(RequireToken(greet, client), GOOD, type="websocket")
        self.assertRegex(log.output[0], "auth_unavailable: .*Connect call failed")
        self.assertEqual((closed["code"], closed["reason"]), (1013, "unavailable"))
        await client.close()

    async def test_headers_are_added_unless_the_application_sets_them(self) -> None:
        start, body = await ask(self.app, GOOD, (b"x-request-id", b"mine"))
        self.assertEqual(body["body"], b"ann")
        headers = dict(start["headers"])
        self.assertEqual((headers[b"cache-control"], headers[b"x-request-id"]), (b"no-store", b"mine"))
        self.assertRegex(headers[b"server-timing"], rb'^auth;dur=[0-9.]+;desc="call \w+ shared by 1"$')
        start, _ = await ask(self.app, GOOD, path="/own")
        self.assertEqual([value for name, value in start["headers"] if name == b"cache-control"], [b"private"])

    async def test_a_refusal_names_the_id_of_the_request(self) -> None:
        start, body = await ask(self.app, BAD, (b"x-request-id", b"mine"))
        self.assertEqual(dict(start["headers"])[b"x-request-id"], b"mine")
        self.assertEqual(
            json.loads(body["body"]),
            {
                "type": "about:blank",
                "title": "Unauthorized",
                "status": 401,
                "detail": "The token is missing, unknown, expired or revoked.",
                "error": "invalid_token",
                "requestId": "mine",
            },
        )

    async def test_a_request_of_an_unknown_type_is_not_admitted(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "does not admit"):
            await ask(self.app, GOOD, type="quic")

    async def test_the_client_is_closed_when_the_application_shuts_down(self) -> None:
        async def app(scope: Any, _receive: Any, send: Any) -> None:
            self.assertEqual(scope["type"], "lifespan")
            await send({"type": "lifespan.shutdown.complete"})

        await ask(RequireToken(app, self.client), type="lifespan")
        with self.assertRaisesRegex(RuntimeError, "closed"):
            await self.client.validate("good")

    async def test_a_cancelled_request_takes_no_other_with_it(self) -> None:
        self.auth.answering.clear()
        first = asyncio.create_task(self.client.validate("good-1"))
        second = asyncio.create_task(self.client.validate("good-2"))
        third = asyncio.create_task(self.client.validate("good-3"))
        await self.auth.called.wait()
        first.cancel()
        third.cancel()
        await asyncio.wait([first, third])
        self.auth.answering.set()
        admission = (await second).admission
        self.assertEqual(admission and admission.username, "ann")
        self.assertEqual(self.auth.calls, [["good-1", "good-2", "good-3"]])

    async def test_a_request_that_is_cancelled_before_its_call_is_not_sent(self) -> None:
        tasks = [asyncio.create_task(self.client.validate(token)) for token in ("good-1", "good-2")]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await tasks[1]
        self.assertEqual(self.auth.calls, [["good-2"]])

    async def test_too_many_waiting_requests_fail_at_once(self) -> None:
        client = AuthClient(self.auth.url, KEY, max_waiting=2, deadline=60)
        self.addAsyncCleanup(client.close)
        tasks = [asyncio.create_task(client.validate(f"good-{i}")) for i in range(3)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        self.assertIsInstance(outcomes[2], TokenError)
        self.assertEqual([type(outcome).__name__ for outcome in outcomes[:2]], ["Validation", "Validation"])

    async def test_closing_waits_for_the_requests_under_way(self) -> None:
        asked = asyncio.create_task(self.client.validate("good"))
        await asyncio.sleep(0)
        await self.client.close()
        self.assertIsNotNone((await asked).admission)


class RulesTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.auth = await self.enterAsyncContext(FakeAuth())
        self.client = AuthClient(self.auth.url, KEY)
        self.addAsyncCleanup(self.client.close)

    async def test_a_rule_behind_a_guard_uses_its_verdict(self) -> None:
        app = RequireToken(RequireRole(RequireScope(greet, "orders:read"), "editor", client=self.client), self.client)
        _, body = await ask(app, GOOD)
        self.assertEqual((body["body"], self.auth.calls), (b"ann", [["good"]]))

    async def test_a_rule_asks_again_if_the_verdict_is_that_of_another_client(self) -> None:
        other = AuthClient(self.auth.url, KEY)
        self.addAsyncCleanup(other.close)
        await ask(RequireToken(RequireRole(greet, "editor", client=other), self.client), GOOD)
        self.assertEqual(self.auth.calls, [["good"], ["good"]])

    async def test_a_refusal_has_the_headers_and_the_request_id_of_the_guard_in_front(self) -> None:
        for app in (
            RequireToken(RequireRole(greet, "admin"), self.client),
            RequireRole(greet, "admin", client=self.client),
        ):
            start, body = await ask(app, GOOD)
            headers = dict(start["headers"])
            self.assertEqual((start["status"], headers[b"cache-control"]), (403, b"no-store"))
            self.assertEqual(headers[b"www-authenticate"], b'Bearer realm="latchkey", error="insufficient_scope"')
            problem = json.loads(body["body"])
            self.assertEqual(problem["requestId"], headers[b"x-request-id"].decode())
            self.assertEqual(
                problem["detail"], "This needs the role admin, which the user of this token does not have."
            )

    async def test_a_websocket_without_the_scope_is_refused(self) -> None:
        app = RequireScope(greet, "orders:write", client=self.client)
        self.assertEqual(
            await ask(app, GOOD, type="websocket"),
            [{"type": "websocket.close", "code": 1008, "reason": "insufficient_scope"}],
        )
        start, _ = await ask(app, GOOD, type="websocket", extensions={"websocket.http.response": {}})
        self.assertEqual(start["status"], 403)
        self.assertIn((b"cache-control", b"no-store"), start["headers"])

    async def test_a_rule_in_the_shadow_refuses_nothing_and_reports_whom_it_would_refuse(self) -> None:
        seen: list[ShadowRefusal] = []
        behind = RequireRole(greet, "editor", shadow=seen.append)
        app = RequireScope(behind, "orders:write", client=self.client, shadow=seen.append)
        _, body = await ask(app, GOOD, (b"x-request-id", b"mine"))
        self.assertEqual((body["body"], seen), (b"ann", [ShadowRefusal("scope:orders:write", "mine", "id", "1")]))

    async def test_a_rule_with_nothing_in_front_admits_nothing(self) -> None:
        forged = {"auth": Admission("id", "sliding", "ann", "1", 1, 2, 3, 1, ("admin",), None, None, None, {})}
        with self.assertRaisesRegex(RuntimeError, "RequireToken in front"):
            await ask(RequireRole(greet, "admin"), GOOD, **forged)

    async def test_the_application_is_told_of_the_lifespan(self) -> None:
        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "lifespan.shutdown.complete"})

        self.assertEqual(len(await ask(RequireRole(app, "admin"), type="lifespan")), 1)
        await ask(RequireRole(app, "admin", client=self.client), type="lifespan")
        with self.assertRaisesRegex(RuntimeError, "closed"):
            await self.client.validate("good")

    async def test_wsgi_does_the_same(self) -> None:
        client = SyncAuthClient(self.auth.url, KEY)

        def app(_environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            return [b"hello"]

        def get(app: Any) -> tuple[str, dict[str, str]]:
            started: list[Any] = []
            b"".join(app({"HTTP_TOKEN": "good"}, lambda *start: started.append(start)))
            return started[0][0], dict(started[0][1])

        behind = RequireRoleWsgi(RequireScopeWsgi(app, "orders:read"), "editor", client=client)
        guarded = RequireTokenWsgi(behind, client)
        self.assertEqual((await asyncio.to_thread(get, guarded))[0], "200 OK")
        self.assertEqual(self.auth.calls, [["good"]])
        status, headers = await asyncio.to_thread(get, RequireScopeWsgi(app, "orders:write", client=client))
        self.assertEqual((status, headers["Cache-Control"]), ("403 Forbidden", "no-store"))
        with self.assertRaisesRegex(RuntimeError, "in front"):
            RequireRoleWsgi(app, "admin")({"HTTP_TOKEN": "good"}, None)
        await asyncio.to_thread(client.close)

    async def test_an_empty_scope_grants_nothing_and_is_not_none(self) -> None:
        self.auth.changes = {"scope": ""}
        admission = (await self.client.validate("good")).admission
        assert admission is not None
        self.assertEqual(admission.scope, "")
        with self.assertRaises(TokenError):
            require_scope(admission, "orders:read")
        start, _ = await ask(RequireScope(greet, "orders:read", client=self.client), GOOD)
        self.assertEqual(start["status"], 403)
        seen: list[ShadowRefusal] = []
        start, _ = await ask(RequireScope(greet, "orders:read", client=self.client, shadow=seen.append), GOOD)
        self.assertEqual((start["status"], [one.rule for one in seen]), (200, ["scope:orders:read"]))

    async def test_an_admission_names_the_key_and_who_acts_for_the_user(self) -> None:
        for sent, expected in (
            ({}, (None, None)),
            ({"keyName": None, "actor": None}, (None, None)),
            ({"keyName": "deploy", "actor": {"sub": "agent", "someday": 1}}, ("deploy", Actor("agent"))),
        ):
            with self.subTest(sent):
                self.auth.changes = sent
                admission = (await self.client.validate("good")).admission
                assert admission is not None
                self.assertEqual((admission.key_name, admission.actor), expected)

    async def test_functions_require_the_same_of_an_admission(self) -> None:
        admission = (await self.client.validate("good")).admission
        assert admission is not None
        require_role(admission, "editor")
        require_scope(admission, "orders:read")
        with self.assertRaises(TokenError) as raised:
            require_scope(admission, "orders:read", "orders:write")
        self.assertEqual(raised.exception.status, 403)
        self.assertIn('scope="orders:read orders:write"', raised.exception.headers["WWW-Authenticate"])

    def test_malformed_names_raise_at_once(self) -> None:
        for names in ((), ("Admin",), ("a b",), ("admin\n",), ("",), ("a" * 65,), (7,), ("a",) * 17):
            with self.subTest(names), self.assertRaisesRegex(ValueError, "expected a role such as admin"):
                RequireRole(greet, *names)  # type: ignore[arg-type]
        for names in ((), ("a b",), ('a"',), ("a\\",), ("a\n",), ("ä",)):
            with self.subTest(names), self.assertRaisesRegex(ValueError, "expected a scope such as orders:write"):
                RequireScopeWsgi(greet, *names)  # type: ignore[arg-type]


class WsgiTest(unittest.IsolatedAsyncioTestCase):
    async def test_threads_share_calls_and_a_forked_process_has_its_own(self) -> None:
        async with FakeAuth() as auth:
            client = SyncAuthClient(auth.url, KEY)
            auth.answering.clear()
            asked = [asyncio.create_task(asyncio.to_thread(client.validate, f"good-{i}")) for i in range(12)]
            while sum(map(len, auth.calls)) < 2 or len(auth.calls) < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            auth.answering.set()
            await asyncio.gather(*asked)
            self.assertLess(len(auth.calls), 12)

            child = os.fork()
            if child == 0:
                os._exit(0 if client.validate("good").admission else 1)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            self.assertEqual(status, 0)
            await asyncio.to_thread(client.close)

    async def test_the_application_gets_the_admission_and_a_refusal_does_not_reach_it(self) -> None:
        async with FakeAuth() as auth:
            client = SyncAuthClient(auth.url, KEY)
            reached: list[str] = []

            def app(environ: Any, start_response: Any) -> list[bytes]:
                reached.append(environ["latchkey.auth"].username)
                start_response("200 OK", [("Cache-Control", "private")])
                return [b"hello"]

            def get(environ: dict[str, str]) -> tuple[str, dict[str, str], bytes]:
                started: list[Any] = []
                body = b"".join(RequireTokenWsgi(app, client)(environ, lambda *start: started.append(start)))
                return started[0][0], dict(started[0][1]), body

            status, headers, body = await asyncio.to_thread(get, {"HTTP_TOKEN": "good"})
            self.assertEqual((status, headers["Cache-Control"], body), ("200 OK", "private", b"hello"))
            status, headers, body = await asyncio.to_thread(get, {"HTTP_TOKEN": "bad"})
            self.assertEqual((status, headers["Content-Length"]), ("401 Unauthorized", str(len(body))))
            self.assertEqual(reached, ["ann"])
            await asyncio.to_thread(client.close)


class ArgumentsTest(unittest.TestCase):
    def test_wrong_arguments_raise_at_once_and_no_message_has_the_key(self) -> None:
        for arguments, expected in (
            (("http://127.0.0.1:1", ""), "service key is missing"),
            (("http://127.0.0.1:1", "a secret\n"), "service key is missing or malformed"),
            (("127.0.0.1:3101", KEY), "must begin with http"),
            (("http://127.0.0.1:1/auth", KEY), "scheme, a host and a port"),
        ):
            with self.subTest(arguments), self.assertRaisesRegex(ValueError, expected) as raised:
                AuthClient(*arguments)
            self.assertNotIn("secret", str(raised.exception))
        for options in ({"max_batch": 256}, {"max_batch": 0}, {"deadline": 0}, {"max_calls": 0}, {"max_waiting": 0}):
            with self.subTest(options), self.assertRaises(ValueError):
                AuthClient("http://127.0.0.1:1", KEY, **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    unittest.main()
