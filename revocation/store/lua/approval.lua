-- What a first person has asked for, in the first partition, until a second one orders the same or its time is over.
--
-- ARGV  log, realm, id, ms that it lives, what to keep ('' to read)
-- Reply {'ok', what is kept or ''} or {why}. What is there already stays as it is, for a first person who asks again.

local m = meta()
local closed = gate(m, ARGV[1])
if closed then return {closed} end
local key = prefix .. 'approval:' .. ARGV[2] .. ':' .. ARGV[3]
if ARGV[5] ~= '' then redis.call('SET', key, ARGV[5], 'NX', 'PX', ARGV[4]) end
return {'ok', redis.call('GET', key) or ''}
