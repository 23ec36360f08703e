-- Proof of where the log ends, for a replica that may vouch. If a WAIT follows it writes something, or the WAIT would
-- have nothing to wait for (H12).
--
-- ARGV  log, member, incarnation, caller's ms, skew ms, copies that the caller will wait for, '1' for a newcomer, who
--       may ask before it is active (H8) but not vouch by the answer
-- Reply {'ok', now, seq, clock of versions} or {why} as in commit.lua

local m = meta()
local closed = gate(m, ARGV[1]) or sane(m, tonumber(ARGV[4]), tonumber(ARGV[5]))
  or standing(m, ARGV[2], tonumber(ARGV[3]), ARGV[7] == '1')
if closed then return {closed} end
-- The XTRIM trims nothing: it is allowed to a store that is out of memory, and then the other write is, too.
if ARGV[6] ~= '0' then
  redis.call('XTRIM', LOG, 'MINID', '~', '0')
  redis.call('HSET', META, 'high', int(math.max(now, tonumber(m.high or '0'))))
end
return {'ok', int(now), m.seq or '0', m.clock or '0'}
