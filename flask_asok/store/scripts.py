"""What the store does inside Redis."""

from .history import LONGEST

# In each script KEYS[1] is the prefix of the application's keys. Every change is one script, hence one atomic step.
COMMON = """
local prefix = KEYS[1]
local function clock(now)
    if now ~= '' then return now end
    local time = redis.call('TIME')
    return string.format('%d.%06d', time[1], time[2])
end
local function moment(due, now)
    if string.sub(due, 1, 1) == '+' then return string.format('%.6f', now + string.sub(due, 2)) end
    return due
end
local function field(id, name)
    local value = redis.pcall('HGET', prefix .. 'task:' .. id, name)
    return type(value) == 'string' and value or nil
end
local function taken_out(id, queue)
    queue = queue or field(id, 'queue') or ''
    if redis.call('SREM', prefix .. 'running', id) == 0 and redis.call('ZREM', prefix .. 'sent:' .. queue, id) == 0 then
        redis.call('ZREM', prefix .. 'later', id)
    end
    return queue
end
local function put_in(id, due, now)
    local task = prefix .. 'task:' .. id
    if redis.call('HEXISTS', task, 'message') == 0 then return end
    local queue = taken_out(id)
    if tonumber(due) > tonumber(now) then
        redis.call('ZADD', prefix .. 'later', due, id)
    else
        redis.call('ZADD', prefix .. 'sent:' .. queue, now, id)
    end
end
local function finish(id, state, now, keep)
    taken_out(id)
    local key = redis.call('HGET', prefix .. 'task:' .. id, 'key')
    if key and key ~= '' and redis.call('HGET', prefix .. 'keys', key) == id then
        redis.call('HDEL', prefix .. 'keys', key)
    end
    redis.call('HSET', prefix .. 'task:' .. id, 'state', state, 'finished', now, 'key', '')
    if state == 'succeeded' or state == 'cancelled' then
        redis.call('HDEL', prefix .. 'task:' .. id, 'message')
    end
    redis.call('ZREM', prefix .. 'open', id)
    redis.call('ZADD', prefix .. 'settled', now, id)
    redis.call('EXPIRE', prefix .. 'task:' .. id, keep)
end
local function is_claimed(id, claim)
    local found = redis.call('HMGET', prefix .. 'task:' .. id, 'state', 'claim')
    return found[1] == 'running' and found[2] == claim
end
local function holder_of(key, now, keep, lost)
    local id = key ~= '' and redis.call('HGET', prefix .. 'keys', key)
    if not id then return nil end
    local found = redis.call('HMGET', prefix .. 'task:' .. id, 'state', 'message', 'owner')
    if not found[1] then return nil end
    if found[2] or redis.call('EXISTS', prefix .. 'process:' .. (found[3] or '')) == 1 then return id end
    redis.call('HSET', prefix .. 'task:' .. id, 'error', lost)
    finish(id, 'abandoned', now, keep)
    return nil
end
"""
_ADD = """
local id, key, due, now, keep, lost, enqueued = unpack(ARGV, 1, 7)
now = clock(now)
due = moment(due, now)
local holder = holder_of(key, now, keep, lost)
if holder then return holder end
if key ~= '' then redis.call('HSET', prefix .. 'keys', key, id) end
redis.call('HSET', prefix .. 'task:' .. id, 'due', due, unpack(ARGV, 8))
redis.call('ZADD', prefix .. 'newest', enqueued, id)
redis.call('ZADD', prefix .. 'open', due, id)
put_in(id, due, now)
return id
"""
_CLAIM = """
local id, owner, now, after = unpack(ARGV)
now = clock(now)
local task = prefix .. 'task:' .. id
local state = redis.call('HGET', task, 'state')
if state ~= 'queued' and state ~= 'waiting' then return 0 end
if after ~= '' and redis.call('HGET', task, 'claim') ~= after then return 0 end
redis.call('HINCRBY', task, 'attempts', 1)
redis.call('HDEL', task, 'progress')
redis.call('HSET', task, 'state', 'running', 'owner', owner, 'started', now, 'stopping', '')
taken_out(id)
redis.call('SADD', prefix .. 'running', id)
return redis.call('HINCRBY', task, 'claim', 1)
"""
_REPORT = """
local id, claim, progress = unpack(ARGV)
if not is_claimed(id, claim) then return 0 end
redis.call('HSET', prefix .. 'task:' .. id, 'progress', progress)
return redis.call('HGET', prefix .. 'task:' .. id, 'stopping') == '1' and 1 or 0
"""
_RELEASE = """
local id, due, key, now, keep, lost, message = unpack(ARGV)
now = clock(now)
due = moment(due, now)
if redis.call('HGET', prefix .. 'task:' .. id, 'state') ~= 'waiting' then return '' end
local holder = holder_of(key, now, keep, lost)
if holder then return holder end
if key ~= '' then redis.call('HSET', prefix .. 'keys', key, id) end
local state = tonumber(due) > tonumber(now) and 'waiting' or 'queued'
redis.call('HSET', prefix .. 'task:' .. id, 'state', state, 'due', due, 'key', key, 'unique_key', key)
if message then redis.call('HSET', prefix .. 'task:' .. id, 'message', message, 'kept', '1') end
redis.call('ZADD', prefix .. 'open', due, id)
put_in(id, due, now)
return id
"""
_POSTPONE = """
local id, claim, due, attempts, error, traceback, now = unpack(ARGV)
now = clock(now)
due = moment(due, now)
if not is_claimed(id, claim) then return 0 end
local told = (field(id, 'started') or '0') .. ' ' .. now .. ' ' .. cjson.encode(error) .. '\\n'
local history = (field(id, 'history') or '') .. told
-- Whole lines, since a letter may be several bytes.
while #history > LONGEST do history = string.gsub(history, '^[^\\n]*\\n?', '', 1) end
redis.call('HSET', prefix .. 'task:' .. id, 'state', 'waiting', 'due', due, 'attempts', attempts, 'error', error,
    'traceback', traceback, 'history', history)
redis.call('ZADD', prefix .. 'open', due, id)
taken_out(id)
if redis.call('HEXISTS', prefix .. 'task:' .. id, 'message') == 1 then
    redis.call('ZADD', prefix .. 'later', due, id)
end
return 1
"""
_SETTLE = """
local id, claim, state, now, keep, error, traceback = unpack(ARGV, 1, 7)
local outcome = ARGV[8] and {'outcome', ARGV[8]} or {}
local found = redis.call('HMGET', prefix .. 'task:' .. id, 'finished', 'claim')
if not found[1] or tonumber(found[1]) ~= 0 or found[2] ~= claim then return 0 end
redis.call('HSET', prefix .. 'task:' .. id, 'error', error, 'traceback', traceback, unpack(outcome))
now = clock(now)
finish(id, state, now, keep)
return 1
"""
_CANCEL = """
local id, now, keep = unpack(ARGV)
local state = redis.call('HGET', prefix .. 'task:' .. id, 'state')
if state ~= 'queued' and state ~= 'waiting' then return 0 end
finish(id, 'cancelled', clock(now), keep)
return 1
"""
_STOP = """
local task = prefix .. 'task:' .. ARGV[1]
if redis.call('HGET', task, 'state') ~= 'running' then return 0 end
redis.call('HSET', task, 'stopping', '1')
return 1
"""
_RETRY = """
local id, now, keep, lost = unpack(ARGV)
now = clock(now)
local task = prefix .. 'task:' .. id
local found = redis.call('HMGET', task, 'state', 'message', 'unique_key')
if (found[1] ~= 'failed' and found[1] ~= 'abandoned') or not found[2] then return 0 end
local key = found[3] or ''
if holder_of(key, now, keep, lost) then return 0 end
if key ~= '' then redis.call('HSET', prefix .. 'keys', key, id) end
redis.call('PERSIST', task)
redis.call('HINCRBY', task, 'claim', 1)
redis.call('HDEL', task, 'outcome', 'left', 'history')
redis.call('HSET', task, 'state', 'queued', 'attempts', 0, 'deaths', 0, 'due', now, 'owner', '', 'finished', 0,
    'error', '', 'traceback', '', 'key', key)
redis.call('ZREM', prefix .. 'settled', id)
redis.call('ZADD', prefix .. 'open', now, id)
put_in(id, now, now)
return 1
"""
_DISCARD = """
local id = ARGV[1]
local finished = redis.call('HGET', prefix .. 'task:' .. id, 'finished')
if not finished or tonumber(finished) == 0 then return 0 end
redis.call('DEL', prefix .. 'task:' .. id)
redis.call('ZREM', prefix .. 'settled', id)
redis.call('ZREM', prefix .. 'newest', id)
return 1
"""
_FREE = """
local id = ARGV[1]
local key = redis.call('HGET', prefix .. 'task:' .. id, 'key')
if key and key ~= '' then
    if redis.call('HGET', prefix .. 'keys', key) == id then redis.call('HDEL', prefix .. 'keys', key) end
    redis.call('HSET', prefix .. 'task:' .. id, 'key', '')
end
"""
_EXPIRE = """
local now, keep, limit = unpack(ARGV)
local before = string.format('(%.6f', clock(now) - keep)
local ids = redis.call('ZRANGEBYSCORE', prefix .. 'settled', '-inf', before, 'LIMIT', 0, limit)
for _, id in ipairs(ids) do
    redis.call('DEL', prefix .. 'task:' .. id)
    redis.call('ZREM', prefix .. 'settled', id)
    redis.call('ZREM', prefix .. 'newest', id)
end
return #ids
"""
_TAKE_TICK = """
local name, at, id = unpack(ARGV)
local latest = redis.call('HGET', prefix .. 'ticks', name)
if latest and cjson.decode(latest)[1] >= tonumber(at) then return 0 end
redis.call('HSET', prefix .. 'ticks', name, '[' .. at .. ',' .. cjson.encode(id) .. ']')
return 1
"""
_REPLACE_TICK = """
local name, at, id, old_at, old_id = unpack(ARGV)
local latest = redis.call('HGET', prefix .. 'ticks', name)
if (latest and true or false) ~= (old_at and true or false) then return 0 end
if latest then
    local found = cjson.decode(latest)
    if found[1] ~= tonumber(old_at) or found[2] ~= old_id then return 0 end
end
redis.call('HSET', prefix .. 'ticks', name, '[' .. at .. ',' .. cjson.encode(id) .. ']')
return 1
"""
SCRIPTS = {
    name: COMMON + script
    for name, script in {
        "add": _ADD,
        "claim": _CLAIM,
        "report": _REPORT,
        "release": _RELEASE,
        "postpone": _POSTPONE.replace("LONGEST", str(LONGEST)),
        "settle": _SETTLE,
        "cancel": _CANCEL,
        "stop": _STOP,
        "retry": _RETRY,
        "discard": _DISCARD,
        "free": _FREE,
        "expire": _EXPIRE,
        "take_tick": _TAKE_TICK,
        "replace_tick": _REPLACE_TICK,
    }.items()
}
"""Each script by its name, whole."""
