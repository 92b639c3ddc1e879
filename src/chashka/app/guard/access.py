"""Who asks, what they may, how often: API keys, sessions of the page's login, the server's own token.

On a loopback address without any key everything is allowed to whoever reaches it (the shield keeps other sites' pages away).
As soon as a key exists, the address can be reached by others, or the policy is that of a shared server, a key is needed. Its
scopes: generate (submit, and change one's own), read (look at one's own), train (submit training), admin (everything, of
everybody).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chashka.app.store.keys import SCOPES
from chashka.errors import InputError

if TYPE_CHECKING:
    from chashka.app.settings import Settings
    from chashka.app.store.keys import Key, Keys

COOKIE = "chashka_session"
_REMEMBERED = 2.0
"""Seconds for which it is remembered whether there is a key at all: another process may add the first one."""
_MOST_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks. id: a job's ``owner``; "local" where no key is needed. counted: whether it is counted how often they ask."""

    id: str
    name: str
    scopes: frozenset[str]
    counted: bool = field(default=True, compare=False)

    def may(self, scope: str) -> bool:
        """Whether they may do what needs ``scope``; admin may everything."""
        return scope in self.scopes or "admin" in self.scopes

    def sees(self, owner: str) -> bool:
        """Whether what belongs to ``owner`` is there for them."""
        return owner == self.id or "admin" in self.scopes


LOCAL = Who("local", "local", frozenset(SCOPES))
OWN = Who("local", "local", frozenset(SCOPES), counted=False)
"""A command on this machine, with the server's own token: it may import ten thousand pictures at once."""


class UnauthorizedError(Exception):
    """A key is needed, and none that is valid was given."""


class ForbiddenError(Exception):
    """The key does not have the scope."""


class TooManyError(Exception):
    """Asked too often. retry_after: in so many seconds it is worth trying again."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Access:
    """Turns what a request carries into a :class:`Who`. token: the server's own, for commands on this machine."""

    def __init__(self, settings: Settings, keys: Keys, token: str = "") -> None:
        self._host, self._keys, self._token = settings.host, keys, token
        self._private = loopback(settings.host) and settings.policy != "shared"
        self._any, self._until = False, 0.0

    def needed(self) -> bool:
        """Whether a key is needed to do anything."""
        if not self._private:
            return True
        now = time.monotonic()
        if now >= self._until:
            self._any = any(key.revoked is None for key in self._keys.list())
            self._until = now + _REMEMBERED
        return self._any

    def at_once(self, authorization: str | None, cookie: str | None) -> Who | None:
        """Who asks, if that is known without looking into the store: where no key was needed a moment ago and none is given."""
        open_to_all = not self._any and time.monotonic() < self._until and self._private
        return LOCAL if open_to_all and not authorization and not cookie else None

    def changed(self) -> None:
        """Keys were added or revoked: look again."""
        self._until = 0.0

    def refuse_open_door(self) -> None:
        """Raises InputError where others would reach a server that no key protects: by its address or through a proxy."""
        if self._private or any(key.revoked is None for key in self._keys.list()):
            return
        shared = loopback(self._host)
        why = "policy: 'shared' is for several people" if shared else f"host: {self._host!r} can be reached by others"
        allowed = "private" if shared else "127.0.0.1"
        raise InputError(
            f"{why} and there is no API key; allowed without one: {allowed}; make one first: chashka keys add NAME"
        )

    def who(self, authorization: str | None, cookie: str | None = None, *, basic: bool = False) -> Who:
        """Of the header Authorization (``Bearer KEY``; where ``basic``, also a password that is a key) or the session's cookie.

        Raises UnauthorizedError. Where no key is needed anything is taken: many clients must send one.
        """
        kind, _, value = (authorization or "").partition(" ")
        secret = value.strip() if kind.lower() == "bearer" else ""
        if basic and kind.lower() == "basic":
            secret = _password(value)
        if secret:
            if self._token and hmac.compare_digest(secret.encode(), self._token.encode()):
                return OWN
            key = self._keys.check(secret)
            if key is not None:
                return _of(key)
        elif cookie and not authorization:
            key = self._keys.session(cookie)
            if key is not None:
                return _of(key)
        if self.needed():
            raise UnauthorizedError(
                "a valid API key is needed: Authorization: Bearer KEY (chashka keys add NAME makes one)"
            )
        return LOCAL


class Buckets:
    """How many each may ask for in a minute: a bucket that fills evenly and holds a minute's worth.

    what: is counted; setting: the name of the limit.
    """

    def __init__(self, per_minute: int, what: str = "jobs", setting: str = "submits_per_minute") -> None:
        self._what, self._setting = what, setting
        self._rate, self._size = per_minute / 60.0, float(per_minute)
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, who: Who, number: int = 1) -> None:
        """Count ``number``, all of them or none. Raises TooManyError with the seconds until there is room for them again.

        Raises InputError for more at once than there ever is room for.
        """
        if not self._size or not who.counted or not number:
            return
        if number > self._size:
            raise InputError(
                f"request: it counts as {number} {self._what}; allowed: at most {self._size:.0f} in a minute "
                f"({self._setting}); ask for fewer at once"
            )
        with self._lock:
            level, now = self._level(who)
            enough = level >= number
            self._levels[who.id] = (level - number if enough else level, now)
            while len(self._levels) > _MOST_BUCKETS:
                self._levels.popitem(last=False)
        if not enough:
            raise TooManyError(
                f"more than {self._size:.0f} {self._what} were asked for in a minute; wait and try again",
                (number - level) / self._rate,
            )

    def give_back(self, who: Who, number: int) -> None:
        """What was taken and is not used: something else was refused."""
        if not self._size or not who.counted:
            return
        with self._lock:
            level, now = self._level(who)
            self._levels[who.id] = (min(self._size, level + number), now)

    def _level(self, who: Who) -> tuple[float, float]:
        """How much is in a bucket, and when that was seen; it is taken out, and put back as the newest."""
        now = time.monotonic()
        level, at = self._levels.pop(who.id, (self._size, now))
        return min(self._size, level + (now - at) * self._rate), now


def _of(key: Key) -> Who:
    return Who(key.id, key.name, frozenset(key.scopes))


def _password(encoded: str) -> str:
    """The password of HTTP Basic; empty if it is none."""
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
