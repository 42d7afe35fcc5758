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

QUEUE_RATIO: Final = 8
"""A tenant has at most so many times as many places of the queue as are free, where all together have one in
so many more than its bound: what one tenant alone has is then the bound, and it cannot keep others out. The
more the others have, the fewer it gets. These are the dynamic thresholds of switches with a shared buffer
(Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM
Transactions on Networking 1998)."""

_CANCEL_NAMED: Final = """
-- KEYS inbox lease ...   ARGV cancellation
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('XADD', KEYS[1], '*', 'e', ARGV[1])
return 1
"""

_TOKENS: Final = """
-- A quota of tokens a minute is a bucket of as many, which fills up within a minute (the generic cell rate
-- algorithm, ITU-T I.371, in its virtual scheduling form): what is kept is when it is full again.
local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function book(key, free_at, now)
  local ttl = math.max(1, free_at - now)
  -- Fractions of a millisecond count: one may be many tokens, which would be free otherwise.
  redis.call('SET', key, string.format('%.4f', free_at), 'PX', string.format('%.0f', ttl))
end
"""

SUBMIT: Final = (
    f"local queue_ratio = {QUEUE_RATIO}\n"
    + _TOKENS
    + """
-- KEYS request inbox waiting epoch lease gateway tenants tokens
-- ARGV digest entry queue_bound record_ttl_ms branches gateway cancellation gateway_prefix
-- tenant max_requests queue_places tokens_per_minute tokens   (quotas: 0 is none)
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
local live, queued = 'live:' .. ARGV[9], 'waiting:' .. ARGV[9]
local has = redis.call('HMGET', KEYS[7], live, queued)
local function over(count, most)
  return tonumber(most) > 0 and tonumber(count or '0') + tonumber(ARGV[5]) > tonumber(most)
end
if over(has[1], ARGV[10]) then return {'max_requests', epoch, 0} end
if over(has[2], ARGV[11]) then return {'queue_share', epoch, 0} end
local rate, now, free_at = tonumber(ARGV[12]), nil, nil
if rate > 0 then
  now = milliseconds()
  local cost = tonumber(ARGV[13]) * 60000 / rate
  local before = math.max(now, tonumber(redis.call('GET', KEYS[8]) or '0'))
  free_at = before + cost
  -- A request of more tokens than a minute has needs all of them.
  local wait = before + math.min(cost, 60000) - (now + 60000)
  if wait > 0 then return {'tokens_per_minute', epoch, math.ceil(wait)} end
end
local waiting = tonumber(redis.call('GET', KEYS[3]) or '0') + tonumber(ARGV[5])
-- What left the queue is taken off the count of all first, off that of its tenant a little later.
local own = math.min(waiting, tonumber(has[2] or '0') + tonumber(ARGV[5]))
local free = tonumber(ARGV[3]) + math.ceil(tonumber(ARGV[3]) / queue_ratio) - waiting
if own > queue_ratio * free then return {'full', epoch} end
redis.call('INCRBY', KEYS[3], ARGV[5])  -- the first write: at the memory limit all ends here
redis.call('HINCRBY', KEYS[7], live, ARGV[5])
redis.call('HINCRBY', KEYS[7], queued, ARGV[5])
if rate > 0 then book(KEYS[8], free_at, now) end
if orphan then redis.call('XADD', KEYS[2], '*', 'e', seen[4]) end
redis.call('XADD', KEYS[2], '*', 'e', ARGV[2])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'epoch', epoch, 'gateway', ARGV[6], 'cancellation', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'accepted', epoch}
"""
)
"""Accepts a request exactly once; the answer is ``[verdict, current epoch]``. Where the verdict is a quota's
name, a third element says in how many milliseconds it allows the same request; 0: not known."""

REPORT: Final = (
    _WITHIN_ANY_LIMIT
    + _TOKENS
    + """
-- KEYS tenants epoch tokens...   ARGV epoch number (tenant departed ended cost_ms)...
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if tonumber(redis.call('HGET', KEYS[1], 'reports') or '0') >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'reports', ARGV[2])
local function take(field, count)
  if count == '0' then return end
  if redis.call('HINCRBY', KEYS[1], field, -count) <= 0 then redis.call('HDEL', KEYS[1], field) end
end
local now = milliseconds()
for index = 3, #KEYS do
  local at = 4 * index - 9  -- of the tenant in ARGV
  take('waiting:' .. ARGV[at], ARGV[at + 1])
  take('live:' .. ARGV[at], ARGV[at + 2])
  local cost = tonumber(ARGV[at + 3])
  if cost > 0 then
    book(KEYS[index], math.max(now, tonumber(redis.call('GET', KEYS[index]) or '0')) + cost, now)
  end
end
return 1
"""
)
"""Takes off each tenant's counts what departed and ended, and books the tokens that it used, in milliseconds
of its quota. Reports are numbered since the epoch opened: one that was carried out changes nothing again."""

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

ADD: Final = (
    _WITHIN_ANY_LIMIT
    + """
-- KEYS set   ARGV member
return redis.call('SADD', KEYS[1], ARGV[1])
"""
)
"""Adds to a set that does not expire."""

RELEASE: Final = """
-- KEYS key   ARGV value
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
"""Deletes a key that still holds our value."""
