-- A member has re-proposed everything that it holds into this history (H3), or holds nothing: it confirms. A newcomer
-- registers by the same step (H8).
--
-- ARGV  log, member, incarnation ('' for a new process), caller's ms, skew ms, then the ids of the members that it
--       knows (H4)
-- Reply {'ok', incarnation} or {why}

local log, id, inc = ARGV[1], ARGV[2], tonumber(ARGV[3])
local m = meta()
local closed = gate(m, log) or sane(m, tonumber(ARGV[4]), tonumber(ARGV[5]))
if closed then return {closed} end

local record = member(id)
local newer = record and inc and record.inc > inc
if newer then return {'fenced'} end
local reg = tonumber(m.reg or '0')
if not record then
  -- Unknown, or struck off: whoever it was, it comes as a newcomer.
  reg = reg + 1
  record = {inc = inc or now, reg = reg, read = 0, act = false}
elseif not inc then
  -- The same member again, with an empty memory: fences its older self. The others know it by its id.
  record = {inc = math.max(now, record.inc + 1), reg = record.reg, read = 0, act = false}
elseif record.inc ~= inc then
  -- Listed by somebody else's memory only.
  record.inc, record.act = inc, false
end
-- What it had read of the registry it read in another history, whose versions mean nothing here.
record.log, record.beat, record.read = log, now, 0
save_member(id, record)
for i = 6, #ARGV do
  if redis.call('HEXISTS', MEMBERS, ARGV[i]) == 0 then
    reg = reg + 1
    save_member(ARGV[i], {inc = 0, log = '', reg = reg, read = 0, act = false, beat = now})
  end
end
redis.call('HSET', META, 'reg', int(reg))
note_usable(log, m.settled)
return {'ok', int(record.inc)}
