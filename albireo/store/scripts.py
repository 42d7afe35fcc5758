"""The Lua scripts: everything that must happen in Redis at once or not at all, and every write that must
go through when Redis is at its memory limit.

Redis refuses memory (``OOM``) to the first write of a script alone, since it could not stop in the middle
(``scriptVerifyOOM`` in its ``script.c``; ``luaRedisGenericCommand`` in ``scripting.c`` of 6.2). A script that
begins with a write that takes no memory, such as PERSIST, is thus let through as a whole. All that running
requests need does so; SUBMIT, which brings new ones, does not.
"""

from __future__ import annotations

from typing import Final

_WITHIN_ANY_LIMIT: Final = "redis.call('PERSIST', KEYS[1])\n"
"""KEYS[1] must be a key that does not expire, or whose time the script sets anew."""

_CANCEL_NAMED: Final = """
-- KEYS inbox lease ...   ARGV cancellation
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('XADD', KEYS[1], '*', 'e', ARGV[1])
return 1
"""

SUBMIT: Final = """
-- KEYS request inbox waiting epoch lease gateway
-- ARGV digest entry queue_bound record_ttl_ms branches gateway cancellation gateway_prefix
local epoch = tonumber(redis.call('GET', KEYS[4]) or '0')
local seen = redis.call('HMGET', KEYS[1], 'digest', 'epoch', 'gateway', 'cancellation')
-- Who follows a request that has not ended is gone: its answer can reach no client, so the id is free.
local orphan = seen[3] and redis.call('EXISTS', ARGV[8] .. seen[3]) == 0
if seen[1] and not orphan then
  if seen[1] ~= ARGV[1] then return {'conflict', epoch} end
  -- An earlier epoch's requests were given up, so the same body may be tried again.
  if tonumber(seen[2]) >= epoch then return {'duplicate', epoch} end
end
if redis.call('EXISTS', KEYS[6]) == 0 then return {'no_gateway', epoch} end
if redis.call('EXISTS', KEYS[5]) == 0 then return {'no_scheduler', epoch} end
local waiting = tonumber(redis.call('GET', KEYS[3]) or '0')
if waiting + tonumber(ARGV[5]) > tonumber(ARGV[3]) then return {'full', epoch} end
redis.call('INCRBY', KEYS[3], ARGV[5])  -- the first write: at the memory limit all ends here
if orphan then redis.call('XADD', KEYS[2], '*', 'e', seen[4]) end
redis.call('XADD', KEYS[2], '*', 'e', ARGV[2])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'epoch', epoch, 'gateway', ARGV[6], 'cancellation', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'accepted', epoch}
"""
"""Accepts a request exactly once; the answer is ``[verdict, current epoch]``."""

END: Final = """
-- KEYS request   ARGV cancellation
if redis.call('HGET', KEYS[1], 'cancellation') ~= ARGV[1] then return 0 end
return redis.call('HDEL', KEYS[1], 'cancellation', 'gateway')
"""
"""Notes that what this cancellation would cancel has come to its end; the request's id stays taken."""

CANCEL: Final = (
    _WITHIN_ANY_LIMIT
    + """
-- KEYS inbox lease epoch request
local seen = redis.call('HMGET', KEYS[4], 'epoch', 'cancellation')
if not seen[2] then return 0 end
if tonumber(seen[1]) < tonumber(redis.call('GET', KEYS[3]) or '0') then return 0 end
-- No scheduler would read the inbox, nor trim it.
if redis.call('EXISTS', KEYS[2]) == 0 then return -1 end
redis.call('XADD', KEYS[1], '*', 'e', seen[2])
return 1
"""
)
"""Cancels a request unless it is known to be over: 1, or 0 where there is none, -1 without a scheduler."""

DROP: Final = _WITHIN_ANY_LIMIT + _CANCEL_NAMED
"""Cancels what a gateway accepted itself; without a scheduler there is nothing to cancel."""

WITHDRAW: Final = (
    _WITHIN_ANY_LIMIT
    + """
-- KEYS inbox lease request   ARGV cancellation
if redis.call('HGET', KEYS[3], 'cancellation') == ARGV[1] then redis.call('DEL', KEYS[3]) end
"""
    + _CANCEL_NAMED
)
"""Cancels a submission whose answer was lost: it may have been accepted. Its id is free again."""

DEPART: Final = (
    _WITHIN_ANY_LIMIT
    + """
-- KEYS waiting departed epoch   ARGV epoch total
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
local new = tonumber(ARGV[2]) - tonumber(redis.call('GET', KEYS[2]) or '0')
if new <= 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
local waiting = redis.call('DECRBY', KEYS[1], new)
if waiting < 0 then redis.call('SET', KEYS[1], '0') end
return new
"""
)
"""Takes those that left the queue off the count of those that wait. ``total`` counts since the epoch opened,
so that telling it again changes nothing."""

APPEND: Final = """
-- KEYS log   ARGV id entry keep
redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[3])  -- takes no memory, and leaves its time to expire alone
return redis.call('XADD', KEYS[1], 'NOMKSTREAM', ARGV[1], 'e', ARGV[2])
"""
"""Appends an entry under the writer's own id to a log of about ``keep`` entries; nil where there is none."""

TAKE: Final = """
-- KEYS key   ARGV value ttl_ms
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])  -- a write that takes no memory: the next one goes through within any limit
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return holder and 2 or 1
"""
"""Takes an expiring key, or keeps it alive: 0 where another holds it, 1 where it was free, 2 where ours."""

RENEW: Final = """
-- KEYS key epoch   ARGV value ttl_ms least_epoch
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return -1 end
local epoch = tonumber(redis.call('GET', KEYS[2]) or '0')
-- It has run out and is free. But where epochs are counted anew, the logs that we know are gone.
if not holder and epoch < tonumber(ARGV[3]) then return -1 end
redis.call('DEL', KEYS[1])  -- as above
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return epoch
"""
"""Keeps an expiring key alive, or takes it again: the epoch opened last, or -1 where the key is lost."""

ANNOUNCE: Final = (
    _WITHIN_ANY_LIMIT
    + """
-- KEYS key   ARGV value ttl_ms
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
"""
)
"""Writes an expiring key, whatever it held."""

PUT: Final = (
    _WITHIN_ANY_LIMIT
    + """
-- KEYS key   ARGV value
return redis.call('SET', KEYS[1], ARGV[1])
"""
)
"""Writes a key that does not expire, whatever it held."""

RELEASE: Final = """
-- KEYS key   ARGV value
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
"""Deletes a key that still holds our value."""
