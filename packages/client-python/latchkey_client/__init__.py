"""Asks Latchkey's Auth about the bearer token of every request.

``RequireToken``, ``RequireRole`` and ``RequireScope`` are ASGI middleware, those that end with ``Wsgi`` the same for
WSGI, and ``AuthClient`` is below them.
Requests that arrive together share one call; nothing is cached, repeated or redirected, and a fault of Auth is 503,
never 401.
"""

from .asgi import RequireRole, RequireScope, RequireToken
from .bearer import read_bearer_token
from .client import AuthClient, Validation
from .contract import Actor, Admission
from .errors import TokenError
from .rules import ShadowRefusal, require_role, require_scope
from .wsgi import RequireRoleWsgi, RequireScopeWsgi, RequireTokenWsgi, SyncAuthClient

__all__ = [
    "Actor",
    "Admission",
    "AuthClient",
    "RequireRole",
    "RequireRoleWsgi",
    "RequireScope",
    "RequireScopeWsgi",
    "RequireToken",
    "RequireTokenWsgi",
    "ShadowRefusal",
    "SyncAuthClient",
    "TokenError",
    "Validation",
    "read_bearer_token",
    "require_role",
    "require_scope",
]
