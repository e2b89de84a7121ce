"""What must happen in Redis in one step."""

REPORT = """
local task, attempt, me, progress = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local state, claim, stop = unpack(redis.call('HMGET', task, 'state', 'claim:' .. attempt, 'stop'))
if (state ~= 'queued' and state ~= 'waiting') or not claim or string.sub(claim, 1, #me + 1) ~= me .. ' ' then
    return 0
end
redis.call('HSET', task, 'progress', progress)
return stop == attempt and 1 or 0
"""
"""Write the progress of an attempt if it is still ours, and return 1 if it was asked to stop."""

TAKE = """
local key, task, prefix, id, keep = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local holder = redis.call('GET', key)
if holder and holder ~= id and redis.call('TYPE', prefix .. holder).ok == 'hash' then
    local state, attempt, ends = unpack(redis.call('HMGET', prefix .. holder, 'state', 'attempt', 'unique_until'))
    local claim = redis.call('HGET', prefix .. holder, 'claim:' .. (attempt or '1'))
    local has_begun = claim or (attempt and attempt ~= '1')
    if (state == 'queued' or state == 'waiting') and claim ~= 'cancelled' and not (has_begun and ends == 'start') then
        return holder
    end
end
redis.call('SET', key, id, 'EX', keep)
redis.call('DEL', task)
redis.call('HSET', task, unpack(ARGV, 4))
redis.call('EXPIRE', task, keep)
return id
"""
"""
Take a unique key and make the record of the task that gets it, anew where it is retried, or return the id of the task
that has the key.

Whether a key is free is told by the record of the task that has it: it is where that is settled, cancelled or gone or,
until "start", has a claim. So a worker of an earlier version frees it too, and one that is lost does not.
"""

KEEP = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
    return redis.call('EXPIRE', KEYS[1], ARGV[2])
end
"""
"""Keep the unique key of a task for as long as its record, or no longer with 0; another task's key stays."""
