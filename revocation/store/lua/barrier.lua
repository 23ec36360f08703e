-- Proof of where the log ends, for a replica that may vouch. Writes nothing but a suspicion of the clock.
--
-- ARGV  log, member, incarnation, caller's ms, skew ms
-- Reply {'ok', now, seq} or {why} as in commit.lua

local m = meta()
local closed = gate(m, ARGV[1]) or sane(m, tonumber(ARGV[4]), tonumber(ARGV[5]))
  or standing(m, ARGV[2], tonumber(ARGV[3]))
if closed then return {closed} end
return {'ok', int(now), m.seq or '0'}
