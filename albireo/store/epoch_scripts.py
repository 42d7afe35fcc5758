"""The Lua scripts by which epochs begin, and groups come and go in them; rules as in
:mod:`albireo.store.scripts`.

Each writes all or nothing: it compares everything that could make a write fail before the first one. All go
through at the memory limit, since requests that run need them. A script appends to a group's results before
it appends to the notices: a blocked reader of both may get the first of them alone (Redis before 7.2), and
must not learn of an end before what came before it.
"""

from __future__ import annotations

from typing import Final

_LAST_ID: Final = """
local function last_id(log)  -- epoch and step of the last entry there has been, trimmed or not
  if redis.call('EXISTS', log) == 0 then return '0', '0' end
  local info = redis.call('XINFO', 'STREAM', log)
  for field = 1, #info, 2 do
    if info[field] == 'last-generated-id' then return string.match(info[field + 1], '(%d+)-(%d+)') end
  end
end
"""

OPEN_EPOCH: Final = (
    _LAST_ID
    + """
-- KEYS epoch lease inbox waiting departed serving tenants notices ...   ARGV lease_token epoch notice
-- Behind the notices: the logs of all registered groups.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return false end
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
for log = 8, #KEYS do last = math.max(last, tonumber((last_id(KEYS[log])))) end
if last >= tonumber(ARGV[2]) then return last end
redis.call('DEL', KEYS[6], KEYS[7])  -- a write that takes no memory
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[4], '0')
redis.call('SET', KEYS[5], '0')
redis.call('XADD', KEYS[8], ARGV[2] .. '-0', 'e', ARGV[3])
local newest = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', '1')
if #newest == 0 then return '0-0' end
return newest[1][1]
"""
)
"""Opens an epoch: the answer is the inbox id after which it begins, as a string.

Nil where the lease is another's; a number where the epoch is not above it, which is the last that was used.
"""

REGISTER: Final = (
    _LAST_ID
    + """
-- KEYS groups results   ARGV group last_step
local _, step = last_id(KEYS[2])
if step == ARGV[2] then return 0 end  -- its life is over
redis.call('PERSIST', KEYS[1])  -- a write that takes no memory
redis.call('SADD', KEYS[1], ARGV[1])
return 1
"""
)
"""Registers a group, unless its logs have been closed: 1, or 0."""

LEAVE: Final = """
-- KEYS groups plans results   ARGV group left_log_ms
redis.call('SREM', KEYS[1], ARGV[1])
-- Where no scheduler is there to close them, they expire all the same.
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
"""
"""Takes a group off the registered ones."""

GROUPS: Final = """
-- KEYS groups group...
return {redis.call('MGET', unpack(KEYS, 2)), redis.call('SMEMBERS', KEYS[1])}
"""
"""What groups announce, and which are registered, at the same moment. A script, since Redis takes no MULTI
when it is at its memory limit."""

_CHANGE_GROUP: Final = (
    _LAST_ID
    + """
-- KEYS epoch lease notices groups serving plans results
-- ARGV lease_token epoch notice_number notice group plan_entry result_entry last_step closed_log_ms
local id = ARGV[2] .. '-' .. ARGV[3]
local same = redis.call('XRANGE', KEYS[3], id, id)
if #same > 0 and same[1][2][2] == ARGV[4] then return 1 end  -- it was done, but the answer was lost
-- A lease that ran out and is free may be taken again while the epoch is still the last: as in RENEW.
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] or redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
local epoch, step = last_id(KEYS[3])
if epoch ~= ARGV[2] or tonumber(step) >= tonumber(ARGV[3]) then return 0 end
local function has_come_to(log, epoch)  -- or has been closed
  local last, step = last_id(log)
  return step == ARGV[8] or tonumber(last) >= epoch
end
"""
)

OPEN_GROUP: Final = (
    _CHANGE_GROUP
    + """
for log = 6, 7 do
  if has_come_to(KEYS[log], tonumber(ARGV[2])) then return 0 end
end
redis.call('PERSIST', KEYS[1])  -- a write that takes no memory
redis.call('XADD', KEYS[6], ARGV[2] .. '-0', 'e', ARGV[6])
redis.call('XADD', KEYS[7], ARGV[2] .. '-0', 'e', ARGV[7])
redis.call('SADD', KEYS[5], ARGV[5])
redis.call('XADD', KEYS[3], id, 'e', ARGV[4])
return 1
"""
)
"""Opens the logs of a group in an epoch: 1, or 0 where the lease, the epoch or a log is not the writer's."""

CLOSE_GROUP: Final = (
    _CHANGE_GROUP
    + """
for log = 6, 7 do
  if has_come_to(KEYS[log], tonumber(ARGV[2]) + 1) then return 0 end
end
redis.call('SREM', KEYS[4], ARGV[5])  -- a write that takes no memory
redis.call('SREM', KEYS[5], ARGV[5])
for log = 6, 7 do
  redis.call('XADD', KEYS[log], ARGV[2] .. '-' .. ARGV[8], 'e', ARGV[log])
  redis.call('PEXPIRE', KEYS[log], ARGV[9])
end
redis.call('XADD', KEYS[3], id, 'e', ARGV[4])
return 1
"""
)
"""Closes the logs of a group for good: 1, or 0 as above. Logs that are gone begin anew with their closing."""
