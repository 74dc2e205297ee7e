"""Reads the bearer token and the id of a request, and makes the 401 for an invalid token (RFC 6750)."""

from __future__ import annotations

import re
import uuid
from typing import Iterable

from .errors import TokenError

_MAX_TOKEN_LENGTH = 2048  # characters; a longer token is 401 without a call to Auth
_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, section 2.1
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Version 00 of https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_CHALLENGE = 'Bearer realm="latchkey"'

Headers = Iterable[tuple[bytes, bytes]]


def read_bearer_token(headers: Headers) -> str:
    """The token from ``Authorization: Bearer <token>`` or ``token: <token>``, never from a URL or a cookie.

    Raises a ``TokenError``: 401 if the token is missing or malformed, 400 if there are two tokens or two Authorization
    headers of any scheme. The headers are those of an ASGI scope.
    """
    tokens: list[str] = []
    authorizations = 0
    for name, value in headers:
        name = name.lower()
        if name == b"authorization":
            authorizations += 1
            if value[:7].lower() == b"bearer ":
                tokens.append(value[7:].decode("latin-1"))
        elif name == b"token":
            tokens.append(value.decode("latin-1"))
    if len(tokens) > 1 or authorizations > 1:
        raise TokenError("invalid_request", "Send the token once: in one Authorization header or in the header token.")
    if not tokens:
        # RFC 6750, section 3.1: no error code for a request that carried no credentials.
        raise TokenError(
            "invalid_token",
            "A bearer token is needed: Authorization: Bearer <token>, or token: <token>.",
            {"WWW-Authenticate": _CHALLENGE},
        )
    token = tokens[0]
    if len(token) > _MAX_TOKEN_LENGTH or not _B64TOKEN.fullmatch(token):
        raise invalid_token()
    return token


def invalid_token() -> TokenError:
    """The same 401 for every invalid token, so that a client cannot learn the reason."""
    return TokenError(
        "invalid_token",
        "The token is missing, unknown, expired or revoked.",
        {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
    )


def read_request_id(headers: Headers) -> str:
    """The id that the client or a proxy has given to the request, or a new one."""
    given = _first(headers, b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


def read_traceparent(headers: Headers) -> str | None:
    """The W3C trace context of the request; None if it has none or a malformed one."""
    given = _first(headers, b"traceparent")
    return given if given is not None and _TRACEPARENT.fullmatch(given) else None


def _first(headers: Headers, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name.lower() == wanted), None)
