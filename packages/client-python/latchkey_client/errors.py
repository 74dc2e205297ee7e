"""The error that the client raises, and the body of the response that reports it."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Literal, Mapping

Code = Literal["invalid_request", "invalid_token", "insufficient_scope", "too_many_requests", "unavailable"]

_STATUS: dict[Code, int] = {
    "invalid_request": 400,
    "invalid_token": 401,
    "insufficient_scope": 403,
    "too_many_requests": 429,
    "unavailable": 503,
}


class TokenError(Exception):
    """Why a request is not admitted. The message may be shown to the caller."""

    def __init__(self, code: Code, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code: Code = code
        self.status = _STATUS[code]
        #: The headers of the response: ``WWW-Authenticate``, ``Retry-After`` or ``RateLimit``.
        self.headers = dict(headers or {})

    def problem(self, request_id: str) -> bytes:
        """The body of an ``application/problem+json`` response: RFC 9457, plus ``error`` and ``requestId``."""
        members = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": str(self),
            "error": self.code,
            "requestId": request_id,
        }
        return json.dumps(members, separators=(",", ":")).encode()


def beyond_limit(retry_after_ms: int) -> TokenError:
    """For a valid token that is beyond its limits or those of its user (draft-ietf-httpapi-ratelimit-headers)."""
    seconds = -(-retry_after_ms // 1000)
    headers = {"Retry-After": str(seconds), "RateLimit": f'"token";r=0;t={seconds}'}
    detail = "The token is used too often. Try again after the time in Retry-After."
    return TokenError("too_many_requests", detail, headers)
