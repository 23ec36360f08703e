-- A member says that it lives and what it has read; anybody reads the registry and the history.
--
-- ARGV  member, incarnation ('' for somebody who is no member), log, caller's ms, skew ms, read (the registry version
--       whose members the caller holds in memory), trim (records below it may go)
-- Reply {state, now, JSON of meta, member id, JSON, member id, JSON, ...}; state as in commit.lua, '' if all is well

local id, inc, log = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local m = meta()
local state = gate(m, log) or sane(m, tonumber(ARGV[4]), tonumber(ARGV[5]))
if state == 'demoted' then return {state} end
local record = member(id)
if not state then
  if not record then state = 'heal'
  elseif inc and record.inc ~= inc then state = 'fenced'
  elseif record.log ~= log then state = 'heal' end
end

if record and inc and record.inc == inc then
  record.beat, record.read = now, math.max(record.read, tonumber(ARGV[6]))
  if not state and not record.act then
    -- H8: active once every other member has read this one's registration.
    local known = true
    local flat = redis.call('HGETALL', MEMBERS)
    for i = 1, #flat, 2 do
      known = known and (flat[i] == id or cjson.decode(flat[i + 1]).read >= record.reg)
    end
    record.act = known
  end
  save_member(id, record)
end
if not state then
  if now > tonumber(m.high or '0') then redis.call('HSET', META, 'high', int(now)) end
  if tonumber(ARGV[7]) > 0 then redis.call('XTRIM', LOG, 'MINID', '~', ARGV[7] .. '-0') end
  state = ''
end
return {state, int(now), cjson.encode(m), unpack(redis.call('HGETALL', MEMBERS))}
