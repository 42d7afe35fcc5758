"""What an error of Redis means for its caller, decided here for all tiers.

Redis names the kind of an error by the first word of its answer. redis-py has a class for some of these words
and takes the word off, has none for others, and puts the command before what a pipeline brought; Redis 6.2
wraps what a script's command was refused for into an ``ERR`` of its own. So the word is looked for in all of
these places.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

_IN_SCRIPT = re.compile(r"(?:Error running script|@user_script).*?: -?([A-Z]+) ", re.DOTALL)
_FIRST_WORD = re.compile(r"([A-Z]+)(?: |$)")


class Trouble(Enum):
    """What can be done about an error."""

    PASSING = auto()  # the same call can succeed in a moment
    FULL = auto()  # maxmemory is reached: until memory is free again, writes that need some are refused
    REFUSED_ID = auto()  # the log has an entry with this id, or a later one: another has written
    LASTING = auto()  # nothing changes until an operator changes something


_PASSING: Final = frozenset(
    (
        "LOADING",  # it reads its file after a start
        "BUSY",  # a script runs for longer than it should
        "READONLY",  # a replica: the primary is another one now, or this one is about to become it
        "MASTERDOWN",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "UNBLOCKED",  # a blocking read, when the primary became a replica
        "NOREPLICAS",
        "MISCONF",  # it cannot write its snapshot or its append-only file
    )
)
_ADVICE: Final = {
    "NOAUTH": "give the password in ALBIREO_REDIS_URL or ALBIREO_REDIS_PASSWORD_FILE",
    "WRONGPASS": "correct the password in ALBIREO_REDIS_URL or ALBIREO_REDIS_PASSWORD_FILE",
    "NOPERM": "allow this user the command and the keys albireo:* (ACL SETUSER)",
    "WRONGTYPE": "something else writes keys albireo:* into this database: give Albireo one of its own",
    "OOM": "raise maxmemory",
    "MISCONF": "Redis cannot write to its disk: see its log",
    "READONLY": "name the primary in ALBIREO_REDIS_URL",
    "MOVED": "no cluster of several nodes: name a Redis that has all keys in ALBIREO_REDIS_URL",
}


def code_of(error: RedisError) -> str:
    """The word by which Redis names the kind of error; empty where it did not answer at all."""
    if error.status_code and error.status_code != "ERR":
        return error.status_code
    text = _answer(error)
    found = _IN_SCRIPT.match(text) or _FIRST_WORD.match(text)
    return found.group(1) if found else ""


def trouble(error: RedisError) -> Trouble:
    """What kind of error it is."""
    code = code_of(error)
    if code in _PASSING:
        return Trouble.PASSING
    if code == "OOM":
        return Trouble.FULL
    if "equal or smaller than the target stream top item" in str(error):
        return Trouble.REFUSED_ID
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return Trouble.LASTING
    # What gave no answer: a connection that broke, a server that is not there, one that has too many clients.
    return (
        Trouble.PASSING if isinstance(error, (RedisConnectionError, RedisTimeoutError)) else Trouble.LASTING
    )


def passes(error: RedisError) -> bool:
    """Whether a retry of the same call may succeed."""
    return trouble(error) in (Trouble.PASSING, Trouble.FULL)


def moved(error: RedisError) -> bool:
    """Whether another server may be the primary now, so that only a new connection finds it."""
    return code_of(error) in ("READONLY", "MASTERDOWN", "UNBLOCKED")


def describe(error: RedisError) -> str:
    """One line for people: the kind, what Redis said, and what to do where that is known."""
    code, text = code_of(error), " ".join(_answer(error).split())
    answer = text[text.index(code) :] if code in text else f"{code} {text}"
    advice = _ADVICE.get(code)
    return f"Redis: {answer}; {advice}" if advice else f"Redis: {answer}"


def _answer(error: RedisError) -> str:
    """What Redis said, without the command of a pipeline that redis-py tells before it."""
    text = str(error)
    return text.rpartition(" of pipeline caused error: ")[2]
