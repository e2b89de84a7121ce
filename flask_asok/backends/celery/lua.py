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
