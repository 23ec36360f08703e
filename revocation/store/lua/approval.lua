-- What a first person has asked for, in the first partition, until a second one orders the same or its time is over.
--
-- ARGV  log, realm, id, ms that it lives, what to keep ('' to read), sealed audit entry of that ('': none)
-- Reply {'ok', what is kept or ''} or {why}. What is there already stays as it is, for a first person who asks again.

local m = meta()
local closed = gate(m, ARGV[1])
if closed then return {closed} end
local key = prefix .. 'approval:' .. ARGV[2] .. ':' .. ARGV[3]
local new = ARGV[5] ~= '' and redis.call('SET', key, ARGV[5], 'NX', 'PX', ARGV[4])
if new and (ARGV[6] or '') ~= '' then audit(ARGV[2], '0', '', ARGV[6]) end
return {'ok', redis.call('GET', key) or ''}
