"""Asks Latchkey's Auth about the bearer token of every request.

``RequireToken`` is ASGI middleware, ``RequireTokenWsgi`` the same for WSGI, and ``AuthClient`` is below both.
Requests that arrive together share one call; nothing is cached, repeated or redirected, and a fault of Auth is 503,
never 401.
"""

from .asgi import RequireToken
from .bearer import read_bearer_token
from .client import AuthClient, Validation
from .contract import Admission
from .errors import TokenError
from .wsgi import RequireTokenWsgi, SyncAuthClient

__all__ = [
    "Admission",
    "AuthClient",
    "RequireToken",
    "RequireTokenWsgi",
    "SyncAuthClient",
    "TokenError",
    "Validation",
    "read_bearer_token",
]
