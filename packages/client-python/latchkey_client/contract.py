"""The wire contract with Auth: the path, the limits, and a parser that checks every member of the answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Mapping, NoReturn

VALIDATE_TOKEN_PATH = "/validateToken"
MAX_TOKENS_PER_CALL = 256
#: Maximum size of a verdict in bytes; an answer with n verdicts may be n + 1 times that size.
MAX_VERDICT_BYTES = 1024

_KINDS = ("sliding", "fixed", "single-use")
_MAX_SAFE_INTEGER = 2**53 - 1


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
    #: The verdict as Auth sent it, with members that this version of the client does not know.
    members: Mapping[str, Any]


class Unavailable:
    """Auth could not ask about this token, although it could about others of the call."""


def parse_verdicts(body: bytes, count: int) -> list[Admission | Unavailable | None]:
    """None is a refusal. Raises ``ValueError`` unless ``body`` holds exactly ``count`` well-formed verdicts."""
    try:
        answer = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("Auth's answer is nested too deeply") from None
    verdicts = answer.get("verdicts") if isinstance(answer, dict) else None
    if not isinstance(verdicts, list) or len(verdicts) != count:
        raise ValueError(f"expected {count} verdicts")
    return [_parse_verdict(verdict) for verdict in verdicts]


def _parse_verdict(verdict: Any) -> Admission | Unavailable | None:
    if isinstance(verdict, dict):
        if "authenticated" not in verdict and verdict.get("unavailable") is True:
            return Unavailable()
        if verdict.get("authenticated") is False:
            return None
        if verdict.get("authenticated") is True and _is_admission(verdict):
            return Admission(
                token_id=verdict["tokenId"],
                kind=verdict["kind"],
                username=verdict["username"],
                user_id=verdict["userId"],
                created_at=verdict["createdAt"],
                expires_at=verdict["expiresAt"],
                absolute_expires_at=verdict["absoluteExpiresAt"],
                refresh_count=verdict["refreshCount"],
                members=verdict,
            )
    raise ValueError("a verdict is not well-formed")


def _is_admission(verdict: dict[str, Any]) -> bool:
    return (
        isinstance(verdict.get("tokenId"), str)
        and verdict.get("kind") in _KINDS
        and all(name in verdict and isinstance(verdict[name], str | None) for name in ("username", "userId"))
        and all(
            _is_integer(verdict.get(name)) for name in ("createdAt", "expiresAt", "absoluteExpiresAt", "refreshCount")
        )
    )


def _is_integer(value: Any) -> bool:
    # Not isinstance: True is an int.
    return type(value) is int and abs(value) <= _MAX_SAFE_INTEGER


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
