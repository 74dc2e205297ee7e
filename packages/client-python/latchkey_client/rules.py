"""What a request needs besides a live token: roles of its user, or a scope of the token. Names match exactly, and there
is no other policy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Literal, Sequence

from .contract import Admission
from .errors import TokenError

Kind = Literal["role", "scope"]

#: Auth gives no user more roles, and no token more names.
_MAX_NAMES = 16
_FORMATS: dict[Kind, tuple[re.Pattern[str], str]] = {
    "role": (
        re.compile(r"[a-z0-9][a-z0-9:._-]{0,63}"),
        "a role such as admin: 1 to 64 of the characters a-z 0-9 : . _ -, the first a letter or a digit",
    ),
    "scope": (
        re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+"),  # RFC 6749, section 3.3
        'a scope such as orders:write: visible ASCII characters except " and \\',
    ),
}


@dataclass(frozen=True, slots=True)
class ShadowRefusal:
    """A request that a rule in the shadow would have refused. Every member is safe to log."""

    #: ``role:admin`` or ``scope:orders:write``.
    rule: str
    request_id: str
    token_id: str
    #: None for a guest.
    user_id: str | None


Shadow = Callable[[ShadowRefusal], object]


class Rule:
    """All of the names are needed. Raises ``ValueError`` at once if one is malformed."""

    def __init__(self, kind: Kind, names: Sequence[str]) -> None:
        pattern, expected = _FORMATS[kind]
        if not 1 <= len(names) <= _MAX_NAMES:
            raise ValueError(f"latchkey: expected {expected}; or several of them, at most {_MAX_NAMES}")
        for name in names:
            if not isinstance(name, str) or not pattern.fullmatch(name):
                raise ValueError(f"latchkey: expected {expected}; not {name!r}")
        self._kind = kind
        self._names = tuple(names)
        self.label = f"{kind}:{' '.join(names)}"

    def is_met(self, admission: Admission) -> bool:
        """A scope that is None restricts nothing: sessions may do whatever the roles of their user allow."""
        if self._kind == "role":
            return all(name in admission.roles for name in self._names)
        return admission.scope is None or all(name in admission.scope.split(" ") for name in self._names)

    def require(self, admission: Admission) -> None:
        """Raises the 403, with the scope that is needed in the challenge (RFC 6750, section 3.1)."""
        if self.is_met(admission):
            return
        is_role = self._kind == "role"
        needed = (", " if is_role else " ").join(self._names)
        plural = "s" if len(self._names) > 1 else ""
        holder = "the user of this token" if is_role else "this token"
        scope = "" if is_role else f', scope="{needed}"'
        raise TokenError(
            "insufficient_scope",
            f"This needs the {self._kind}{plural} {needed}, which {holder} does not have.",
            {"WWW-Authenticate": f'Bearer realm="latchkey", error="insufficient_scope"{scope}'},
        )

    def enforce(self, admission: Admission, request_id: str, shadow: Shadow | None) -> None:
        """As ``require``, unless the rule is in the shadow: then calls ``shadow`` instead of raising."""
        if shadow is None:
            self.require(admission)
        elif not self.is_met(admission):
            shadow(ShadowRefusal(self.label, request_id, admission.token_id, admission.user_id))


def require_role(admission: Admission, *names: str) -> None:
    """Raises a ``TokenError`` of status 403 unless the user has this role, or all of several."""
    Rule("role", names).require(admission)


def require_scope(admission: Admission, *names: str) -> None:
    """The same for the scope of the token. A session has no scope of its own, and is admitted."""
    Rule("scope", names).require(admission)
