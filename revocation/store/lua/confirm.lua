-- A member has re-proposed everything that it holds into this history (H3), or holds nothing: it confirms. A newcomer
-- registers by the same step (H8).
--
-- ARGV  log, member, incarnation ('' for a new process), caller's ms, skew ms, a nonce of the process ('': none), then
--       the ids of the members that it knows (H4)
-- Reply {'ok', incarnation} or {why}

local log, id, inc = ARGV[1], ARGV[2], tonumber(ARGV[3])
local m = meta()
local closed = gate(m, log) or sane(m, tonumber(ARGV[4]), tonumber(ARGV[5]))
if closed then return {closed} end

local record, listed = member(id), true
if not record then
  -- Unknown, or struck off: whoever it was, it comes as a newcomer.
  register(m, {id})
  record, listed = member(id), false
end
if not inc and ARGV[6] ~= '' and record.drawn == ARGV[6] .. ' ' .. int(record.inc) then
  -- The same process again, which had no answer: what comes late must not fence the one who sent it.
  inc = record.inc
elseif not inc then
  -- A new process under this id, with an empty memory: fences an older one. The others know it by its id, but who of
  -- them is still here is to be seen: it becomes active when all have read of it again (H8).
  inc = listed and math.max(now, record.inc + 1) or now
  if listed then
    m.reg = int(tonumber(m.reg or '0') + 1)
    record.reg = tonumber(m.reg)
    redis.call('HSET', META, 'reg', m.reg)
  end
elseif record.inc > inc then
  return {'fenced'}
end
-- An incarnation that the registry did not know: listed by somebody else's memory only, or new.
if record.inc ~= inc then record.inc, record.act = inc, false end
-- What it had read of the registry it read in another history, whose versions mean nothing here.
record.log, record.beat, record.own, record.read, record.at = log, now, tonumber(ARGV[4]), 0, 0
record.drawn = ARGV[6] .. ' ' .. int(inc)
save_member(id, record)
register(m, {unpack(ARGV, 7)})
note_usable(log, m.settled)
return {'ok', int(record.inc)}
