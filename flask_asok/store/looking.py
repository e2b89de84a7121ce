"""What is looked at inside Redis, where a look at a task takes a microsecond: nothing is changed, whatever is there."""

from .scripts import COMMON

_COMMON = f"""{COMMON}
local function fields_of(id, ...)
    local found = redis.pcall('HMGET', prefix .. 'task:' .. id, ...)
    return not found.err and found[1] and found or nil
end
"""
_MATCHING = """
local at, count, state, name, queue, error = unpack(ARGV)
local wanted = {string.sub(state, 2), string.sub(name, 2), string.sub(queue, 2)}
local part = string.lower(string.sub(error, 2))
local is_any = {state == '', name == '', queue == ''}
local marks = redis.call('ZREVRANGE', prefix .. 'newest', at, at + count - 1, 'WITHSCORES')
local found = {}
for i = 1, #marks, 2 do
    -- Most are of another state: that alone is looked at first, in half the time.
    local has = (is_any[1] or field(marks[i], 'state') == wanted[1])
        and fields_of(marks[i], 'state', 'name', 'queue', 'error')
    if has then
        has[2], has[3] = has[2] or 'unknown', has[3] or 'unknown'
        local is_wanted = error == '' or string.find(string.lower(has[4] or ''), part, 1, true)
        for n = 1, 3 do is_wanted = is_wanted and (is_any[n] or has[n] == wanted[n]) end
        if is_wanted then found[#found + 1] = marks[i] end
    end
end
return {#marks / 2, marks[#marks - 1] or '', marks[#marks] or '', found}
"""
_COUNT_ENDED = """
local since, seconds, from, to = unpack(ARGV)
local ended = redis.call('ZRANGE', prefix .. 'settled', from, to, 'WITHSCORES')
local counts = {}
for i = 1, #ended, 2 do
    local state = field(ended[i], 'state')
    if state then
        local period = math.floor((ended[i + 1] - since) / seconds)
        counts[state] = counts[state] or {}
        counts[state][period] = (counts[state][period] or 0) + 1
    end
end
local found = {ended[2] or ''}
for state, periods in pairs(counts) do
    for period, count in pairs(periods) do
        found[#found + 1] = {state, period, count}
    end
end
return found
"""
_COUNT_OPEN = """
local ids = redis.call('ZRANGE', prefix .. 'open', ARGV[1], ARGV[2])
local counts, dues = {}, {}
for _, id in ipairs(ids) do
    local has = fields_of(id, 'state', 'queue', 'due', 'enqueued')
    if has then
        local key = has[1] .. ' ' .. (has[2] or 'unknown')
        -- What a distributed backend sends without a delay may have no due time of its own.
        local due = tonumber(has[3] or 0) or 0
        if due <= 0 then due = tonumber(has[4] or 0) or 0 end
        counts[key] = (counts[key] or 0) + 1
        dues[key] = math.min(dues[key] or due, due)
    end
end
local found = {#ids}
for key, count in pairs(counts) do
    found[#found + 1] = key
    found[#found + 1] = count
    found[#found + 1] = string.format('%.6f', dues[key])
end
return found
"""
LOOKS = {
    "matching": _COMMON + _MATCHING,
    "count_ended": _COMMON + _COUNT_ENDED,
    "count_open": _COMMON + _COUNT_OPEN,
}
"""Each script by its name, whole."""
