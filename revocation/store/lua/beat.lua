-- A member says that it lives and what it has read; anybody reads the registry and the history.
--
-- ARGV  member, incarnation ('' for somebody who is no member), log, caller's ms, skew ms, read (the registry version
--       whose members the caller holds in memory), trim (records below it may go), applied (the number of the log
--       up to which the caller's view holds it; -1: it loads, and will go on from where the log ends now)
-- Reply {state, now, JSON of meta, member id, JSON, member id, JSON, ...}; state as in commit.lua, '' if all is well

local id, inc, log = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local m = meta()
local caller, skew = tonumber(ARGV[4]), tonumber(ARGV[5])
local state = gate(m, log)
if state == 'demoted' then return {state} end
-- Nobody should heal a history that is to be opened anew.
if not state or state == 'heal' then state = sane(m, caller, skew) or state end

-- H8: a newcomer is active once every member has read its registration; itself too, for it must know them all.
local function all_have_read(registration)
  local records = redis.call('HVALS', MEMBERS)
  if #records == 1 then return true end
  for _, text in ipairs(records) do
    if cjson.decode(text).read < registration then return false end
  end
  return true
end

local record = member(id)
if not state then
  if not record then state = 'heal'
  elseif inc and record.inc > inc then state = 'fenced'
  elseif inc and record.inc < inc or record.log ~= log then state = 'heal' end
end

-- The log is not trimmed past what a member still has to read, nor past where a load began (D8). Members that are
-- silent are struck off, and what a load holds goes when it says nothing for so long; the hard cap bounds both.
local HOLDS, HOLD_MS = prefix .. 'holds', 30000

local function holds()
  local found, flat = {}, redis.call('HGETALL', HOLDS)
  for i = 1, #flat, 2 do
    local seq, till = string.match(flat[i + 1], '^(%d+) (%d+)$')
    if tonumber(till) >= now then found[flat[i]] = tonumber(seq) end
  end
  return found
end

local held, loads = holds(), ARGV[8] == '-1'
if loads then held[id] = held[id] or tonumber(m.seq or '0') end
if not loads then held[id] = nil end

local function trim_below()
  if state then return 0 end
  local below = tonumber(ARGV[7])
  for _, seq in pairs(held) do below = math.min(below, seq + 1) end
  local flat = redis.call('HGETALL', MEMBERS)
  for i = 1, #flat, 2 do
    local at = flat[i] == id and not loads and tonumber(ARGV[8]) or cjson.decode(flat[i + 1]).at or 0
    below = math.min(below, at + 1)
  end
  return below
end

-- The first write, because it is allowed to a store that is out of memory, and then the others are, too.
redis.call('XTRIM', LOG, 'MINID', '~', int(trim_below()))
if loads then redis.call('HSET', HOLDS, id, int(held[id]) .. ' ' .. int(now + HOLD_MS)) else redis.call('HDEL', HOLDS, id) end
-- A record of an older incarnation is one that others put here by hearsay: whoever it names lives, and heals.
if record and inc and record.inc <= inc and math.abs(now - caller) <= skew then
  record.beat = now
  if not state then
    record.own, record.read = caller, tonumber(ARGV[6])
    if not loads then record.at = tonumber(ARGV[8]) end
  end
  save_member(id, record)
  if not state and not record.act and all_have_read(record.reg) then
    record.act = true
    save_member(id, record)
  end
end
if not state then
  if now > tonumber(m.high or '0') then redis.call('HSET', META, 'high', int(now)) end
  if tonumber(m.replicas) > tonumber(m.nodes or '0') then
    m.nodes = m.replicas
    redis.call('HSET', META, 'nodes', m.nodes)
  end
  state = ''
end
return {state, int(now), cjson.encode(m), unpack(redis.call('HGETALL', MEMBERS))}
