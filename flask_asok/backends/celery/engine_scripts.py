"""What the store of a distributed backend does inside Redis, besides what every store in Redis does."""

from ...store.scripts import COMMON

_ACCEPT = """
local id, key, delay, keep, lost, enqueued = unpack(ARGV, 1, 6)
local now = clock('')
local holder = holder_of(key, now, keep, lost)
if holder then return {holder, ''} end
if key ~= '' then redis.call('HSET', prefix .. 'keys', key, id) end
local due = moment('+' .. delay, now)
redis.call('HSET', prefix .. 'task:' .. id, 'due', due, unpack(ARGV, 7))
redis.call('ZADD', prefix .. 'newest', enqueued, id)
redis.call('ZADD', prefix .. 'open', due, id)
put_in(id, due, now)
return {id, now}
"""
_BEGIN = """
local id, owner, sent, claim = unpack(ARGV)
local now = clock('')
local task = prefix .. 'task:' .. id
local found = redis.call('HMGET', task, 'state', 'due', 'queue', 'kept', 'claim', 'attempts')
local state, due, queue, kept = unpack(found, 1, 4)
if not state then return {-1, 0} end
if tonumber(sent) then
    local latest = redis.call('HGET', prefix .. 'claimed', queue)
    if not latest or tonumber(latest) < tonumber(sent) then redis.call('HSET', prefix .. 'claimed', queue, sent) end
end
if state == 'running' and found[5] == claim then return {claim, found[6]} end
if state ~= 'queued' and (state ~= 'waiting' or tonumber(due) > tonumber(now)) then return {0, 0} end
if not kept then return {0, 0} end
local attempts = (found[6] or 0) + 1
taken_out(id, queue)
redis.call('SADD', prefix .. 'running', id)
redis.call('HDEL', task, 'progress', 'left')
redis.call('HSET', task, 'state', 'running', 'owner', owner, 'started', now, 'stopping', '', 'claim', claim,
    'attempts', attempts)
return {claim, attempts}
"""
_LEAVE = """
local id, error, seconds, keep = unpack(ARGV)
local now = clock('')
local task = prefix .. 'task:' .. id
local state, left = unpack(redis.call('HMGET', task, 'state', 'left'))
if state ~= 'queued' and state ~= 'waiting' then return 0 end
redis.call('HSET', task, 'error', error)
if not left then
    redis.call('HSET', task, 'left', now)
    return 1
end
if now - left < tonumber(seconds) then return 0 end
redis.call('HDEL', task, 'left')
finish(id, 'failed', now, keep)
return 2
"""
_DUE = """
local limit = ARGV[1]
local now = clock('')
redis.call('SET', prefix .. 'swept', now)
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'later', '-inf', now, 'LIMIT', 0, limit)) do
    local state, queue = field(id, 'state'), taken_out(id)
    if state == 'waiting' or state == 'queued' then
        redis.call('HSET', prefix .. 'task:' .. id, 'state', 'queued')
        redis.call('ZADD', prefix .. 'sent:' .. queue, now, id)
        found[#found + 1] = id
        found[#found + 1] = now
    end
end
return found
"""
_STALE = """
local seconds = ARGV[1]
local before = clock('') - seconds
local found = {}
for index = 2, #ARGV do
    local oldest = redis.call('ZRANGE', prefix .. 'sent:' .. ARGV[index], 0, 0, 'WITHSCORES')
    if oldest[2] and tonumber(oldest[2]) <= before then found[#found + 1] = ARGV[index] end
end
return found
"""
_DROPPED = """
local queue, is_empty, seconds, limit = unpack(ARGV)
local now = clock('')
local before = now - seconds
if is_empty ~= '1' then
    local claimed = redis.call('HGET', prefix .. 'claimed', queue)
    if not claimed then return {} end
    before = math.min(before, claimed - seconds)
end
local found = {}
local sent = prefix .. 'sent:' .. queue
for _, id in ipairs(redis.call('ZRANGEBYSCORE', sent, '-inf', string.format('%.6f', before), 'LIMIT', 0, limit)) do
    if field(id, 'state') == 'queued' then
        redis.call('ZADD', sent, now, id)
        found[#found + 1] = id
        found[#found + 1] = now
    else
        redis.call('ZREM', sent, id)
    end
end
return found
"""
_ORPHANS = """
local found = {}
for _, id in ipairs(redis.call('SMEMBERS', prefix .. 'running')) do
    if field(id, 'state') ~= 'running' then
        redis.call('SREM', prefix .. 'running', id)
    elseif field(id, 'kept') and redis.call('EXISTS', prefix .. 'process:' .. (field(id, 'owner') or '')) == 0 then
        found[#found + 1] = id
    end
end
return found
"""
_TAKE_BACK = """
local id, claim, owner, deaths, heir = unpack(ARGV)
local now = clock('')
local task = prefix .. 'task:' .. id
local found = redis.call('HMGET', task, 'state', 'claim', 'owner')
if found[1] ~= 'running' or found[2] ~= claim or found[3] ~= owner then return 0 end
redis.call('HSET', task, 'owner', heir)
redis.call('HINCRBY', task, 'attempts', -1)
redis.call('HINCRBY', task, 'deaths', deaths)
-- For an heir, which ends it, it stays running: nobody else may begin it meanwhile.
if heir == '' then
    redis.call('HSET', task, 'state', 'queued')
    taken_out(id)
    redis.call('ZADD', prefix .. 'later', now, id)
end
return redis.call('HINCRBY', task, 'claim', 1)
"""
_PROBE = """
local value, replaces = unpack(ARGV)
local kept = redis.call('GET', prefix .. 'probe')
if kept and kept ~= replaces then return kept end
redis.call('SET', prefix .. 'probe', value)
return value
"""
_UNSWEPT = """
if redis.call('EXISTS', prefix .. 'swept') == 1 then return 0 end
local count = redis.call('ZCARD', prefix .. 'later')
for _, queue in ipairs(ARGV) do count = count + redis.call('ZCARD', prefix .. 'sent:' .. queue) end
return count
"""
SCRIPTS = {
    name: COMMON + script
    for name, script in {
        "accept": _ACCEPT,
        "begin": _BEGIN,
        "leave": _LEAVE,
        "due": _DUE,
        "stale": _STALE,
        "dropped": _DROPPED,
        "orphans": _ORPHANS,
        "take_back": _TAKE_BACK,
        "probe": _PROBE,
        "unswept": _UNSWEPT,
    }.items()
}
"""Each script by its name, whole."""
