"""The Lua scripts: everything that must happen in Redis at once or not at all."""

from __future__ import annotations

from typing import Final

SUBMIT: Final = """
-- KEYS request inbox waiting epoch lease group serving   ARGV digest entry queue_bound record_ttl_ms branches
local epoch = tonumber(redis.call('GET', KEYS[4]) or '0')
local seen = redis.call('HMGET', KEYS[1], 'digest', 'epoch')
if seen[1] then
  if seen[1] ~= ARGV[1] then return {'conflict', epoch} end
  -- An earlier epoch's requests were given up, so the same body may be tried again.
  if tonumber(seen[2]) >= epoch then return {'duplicate', epoch} end
end
if redis.call('EXISTS', KEYS[5]) == 0 then return {'no_scheduler', epoch} end
-- A group that has announced itself is served only from its first epoch on.
if redis.call('EXISTS', KEYS[6]) == 0 or redis.call('GET', KEYS[7]) ~= '1' then
  return {'no_group', epoch}
end
local waiting = tonumber(redis.call('GET', KEYS[3]) or '0')
if waiting + tonumber(ARGV[5]) > tonumber(ARGV[3]) then return {'full', epoch} end
redis.call('INCRBY', KEYS[3], ARGV[5])
redis.call('XADD', KEYS[2], '*', 'e', ARGV[2])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'epoch', epoch)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'accepted', epoch}
"""
"""Accepts a request exactly once; the answer is ``[verdict, current epoch]``."""

END: Final = """
-- KEYS request   ARGV epoch
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then redis.call('HSET', KEYS[1], 'ended', '1') end
"""
"""Notes that a request of this epoch has come to its end; its id stays taken."""

CANCEL: Final = """
-- KEYS request inbox epoch   ARGV entry
local seen = redis.call('HMGET', KEYS[1], 'epoch', 'ended')
if not seen[1] or seen[2] then return 0 end
if tonumber(seen[1]) < tonumber(redis.call('GET', KEYS[3]) or '0') then return 0 end
-- Nobody would read the inbox, nor trim it.
if redis.call('EXISTS', KEYS[4]) == 0 then return -1 end
redis.call('XADD', KEYS[2], '*', 'e', ARGV[1])
return 1
"""
"""Cancels a request unless it is known to be over: 1, or 0 where there is none, -1 without a scheduler."""

OPEN_EPOCH: Final = """
-- KEYS epoch plans results inbox waiting lease serving
-- ARGV lease_token epoch plan_entry result_entry serving
if redis.call('GET', KEYS[6]) ~= ARGV[1] then return false end
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[2]) then return false end
for log = 2, 3 do  -- nothing is written unless all of it can be
  local newest = redis.call('XREVRANGE', KEYS[log], '+', '-', 'COUNT', '1')
  if #newest > 0 and tonumber(string.match(newest[1][1], '%d+')) >= tonumber(ARGV[2]) then return false end
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], ARGV[2] .. '-0', 'e', ARGV[3])
redis.call('XADD', KEYS[3], ARGV[2] .. '-0', 'e', ARGV[4])
redis.call('SET', KEYS[5], '0')
redis.call('SET', KEYS[7], ARGV[5])
local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', '1')
if #last == 0 then return '0-0' end
return last[1][1]
"""
"""Opens an epoch in both logs at once; the answer is the inbox id after which it begins, or nil."""

RENEW: Final = """
-- KEYS key   ARGV value ttl_ms
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""Keeps an expiring key alive while it still holds our value; the answer is 1, or 0 when it was lost."""

RELEASE: Final = """
-- KEYS key   ARGV value
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
"""Deletes a key that still holds our value."""
