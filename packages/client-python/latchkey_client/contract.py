"""The wire contract with Auth: the path, the limits, and a parser that checks every member of the answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Mapping, NoReturn

VALIDATE_TOKEN_PATH = "/validateToken"
MAX_TOKENS_PER_CALL = 256
#: Maximum size of a verdict in bytes; an answer with n verdicts may be n + 1 times that size.
MAX_VERDICT_BYTES = 2048

_KINDS = ("sliding", "fixed", "single-use")
_MAX_SAFE_INTEGER = 2**53 - 1
_MAX_KEY_NAME_LENGTH = 64
#: What an Auth of an earlier version does not send.
_SENT_LATER = {"roles": [], "scope": None, "keyName": None, "actor": None}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts for the user of a delegated token (RFC 8693, section 4.1)."""

    #: The name of the delegated token, or else its id.
    sub: str


@dataclass(frozen=True, slots=True)
class Admission:
    """Whom the token belongs to. Instants are epoch milliseconds; ``username`` and ``user_id`` are None for a guest."""

    #: The public name of the token, safe to log.
    token_id: str
    kind: str
    username: str | None
    user_id: str | None
    created_at: int
    expires_at: int
    absolute_expires_at: int
    #: How often the token has been validated, including this time.
    refresh_count: int
    #: The roles of the user. Empty for a guest, and if Auth is too old to send it.
    roles: tuple[str, ...]
    #: The scope of the token, names separated by spaces (RFC 6749, section 3.3). None if the token is restricted by
    #: nothing but the user's roles, as sessions are, and if Auth is too old to send it. Empty if the token has no
    #: rights at all: it passes no rule for a scope.
    scope: str | None
    #: The name of the API key behind the token. None for a session or an unnamed token, and if Auth is too old to send
    #: it.
    key_name: str | None
    #: Who acts for the user, if the token was delegated. None for every other token, and if Auth is too old to send it.
    actor: Actor | None
    #: The members of the verdict under the names of the wire, with those that this version of the client does not know.
    members: Mapping[str, Any]


class Unavailable:
    """Auth could not ask about this token, although it could about others of the call."""


@dataclass(frozen=True, slots=True)
class Limitation:
    """The token is valid, but its limits or those of its user allow no request for so many milliseconds."""

    retry_after_ms: int


def parse_verdicts(body: bytes, count: int) -> list[Admission | Limitation | Unavailable | None]:
    """None is a refusal. Raises ``ValueError`` unless ``body`` holds exactly ``count`` well-formed verdicts."""
    try:
        answer = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("Auth's answer is nested too deeply") from None
    verdicts = answer.get("verdicts") if isinstance(answer, dict) else None
    if not isinstance(verdicts, list) or len(verdicts) != count:
        raise ValueError(f"expected {count} verdicts")
    return [_parse_verdict(verdict) for verdict in verdicts]


def _parse_verdict(verdict: Any) -> Admission | Limitation | Unavailable | None:
    if isinstance(verdict, dict):
        if "authenticated" not in verdict and verdict.get("unavailable") is True:
            return Unavailable()
        if verdict.get("authenticated") is False:
            if verdict.get("limited") is not True:
                return None
            if _is_integer(wait := verdict.get("retryAfterMs")) and wait > 0:
                return Limitation(wait)
        if verdict.get("authenticated") is True and _is_admission(verdict):
            verdict = {**_SENT_LATER, **verdict}
            return Admission(
                token_id=verdict["tokenId"],
                kind=verdict["kind"],
                username=verdict["username"],
                user_id=verdict["userId"],
                created_at=verdict["createdAt"],
                expires_at=verdict["expiresAt"],
                absolute_expires_at=verdict["absoluteExpiresAt"],
                refresh_count=verdict["refreshCount"],
                roles=tuple(verdict["roles"]),
                scope=verdict["scope"],
                key_name=verdict["keyName"],
                actor=None if verdict["actor"] is None else Actor(verdict["actor"]["sub"]),
                members=verdict,
            )
    raise ValueError("a verdict is not well-formed")


def _is_admission(verdict: dict[str, Any]) -> bool:
    return (
        isinstance(verdict.get("tokenId"), str)
        and verdict.get("kind") in _KINDS
        and all(name in verdict and isinstance(verdict[name], str | None) for name in ("username", "userId"))
        and isinstance(verdict.get("scope"), str | None)
        and _is_none_or_key_name(verdict.get("keyName"))
        and _is_none_or_actor(verdict.get("actor"))
        and isinstance(roles := verdict.get("roles", []), list)
        and all(isinstance(role, str) for role in roles)
        and all(
            _is_integer(verdict.get(name)) for name in ("createdAt", "expiresAt", "absoluteExpiresAt", "refreshCount")
        )
    )


def _is_none_or_key_name(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= _MAX_KEY_NAME_LENGTH)


def _is_none_or_actor(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and isinstance(value.get("sub"), str))


def _is_integer(value: Any) -> bool:
    # Not isinstance: True is an int.
    return type(value) is int and abs(value) <= _MAX_SAFE_INTEGER


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
