-- Commits revocations: state, numbers, digests, log record and op records, together or not at all.
--
-- ARGV  log, member, incarnation, caller's ms, skew ms, op retention ms, longest log, version to exceed,
--         number of ops, then for each op:
--         realm, op key, digest of the request, number of groups, then for each group:
--           'd', kind, tag, segment, due, rows              denials, one segment
--           's', the same                                   one session's, left out if it has no live record
--           'c', kind, tag, horizon s, slot s, fingerprints cutoffs: version, time and expiry are drawn here
--       and last, for each realm whose changes are audited: realm, what the service sealed
-- Reply {'ok', now, seq, then for each op: {state, version, at, expires, seq, realm seq, realm digest}, then for each
--       audited realm with a change: realm, number and digest of the audit's entry}
--         state: 'done', 'again' (a retry; answered as then) or 'conflict' (the op id was used for something else)
--       {why} if the gate is closed: demoted, reopen, heal, fenced, wait, clock, full

local log, id, inc = ARGV[1], ARGV[2], tonumber(ARGV[3])
local retention, longest = tonumber(ARGV[6]), tonumber(ARGV[7])
local m = meta()
local closed = gate(m, log) or sane(m, tonumber(ARGV[4]), tonumber(ARGV[5])) or standing(m, id, inc)
if closed then return {closed} end

local at = 10
local function take() at = at + 1; return ARGV[at - 1] end

-- One draw for the whole script. A hybrid clock: never repeats, not even after a key expired or a store was rolled
-- back, and never behind the time of day.
local version = math.max(tonumber(m.clock or '0') + 1, now, tonumber(ARGV[8]) + 1)
local drawn, bodies, order, kept, replies, again, fresh = false, {}, {}, {}, {}, {}, {}
local news, audited = {}, {}  -- for each realm: which of its operations are new

local function read_denials(realm, if_session)
  local kind, tag, segment, due, rows = tonumber(take()), tonumber(take()), take(), take(), take()
  if if_session and not is_session(realm, tag, rows) then return '', 0 end
  kept[#kept + 1] = {realm, segment, due, rows}
  return header(kind, tag, #rows / 12) .. rows, 0
end

local function read_cutoffs(realm)
  local kind, tag, horizon, slot, fps = tonumber(take()), tonumber(take()), tonumber(take()), tonumber(take()), take()
  local expires = math.floor(now / 1000) + horizon + 1
  local rest, rows = struct.pack('<I4', expires) .. u64(version) .. u64(now), {}
  for i = 1, #fps, 8 do rows[#rows + 1] = string.sub(fps, i, i + 7) .. rest end
  local packed, number = table.concat(rows), math.floor(expires / slot)
  kept[#kept + 1] = {realm, kind .. '-' .. tag .. '-' .. int(number), int((number + 1) * slot), packed}
  return header(kind, tag, #rows) .. packed, expires
end

for _ = 1, tonumber(ARGV[9]) do
  local realm, key, digest = take(), take(), take()
  local known, first, body, expires = redis.call('GET', prefix .. 'op:' .. key), #kept + 1, {}, 0
  for _ = 1, tonumber(take()) do
    local packed, until_s
    local how = take()
    if how == 'c' then packed, until_s = read_cutoffs(realm) else packed, until_s = read_denials(realm, how == 's') end
    body[#body + 1], expires = packed, math.max(expires, until_s)
  end
  local twin = fresh[key]
  news[realm] = (news[realm] or '') .. ((known or twin) and '0' or '1')
  if known or twin then
    for i = #kept, first, -1 do kept[i] = nil end
    local fields = {}
    for field in string.gmatch(known or twin.request, '%S+') do fields[#fields + 1] = field end
    if fields[1] ~= digest then
      replies[#replies + 1] = {'conflict'}
    elseif known then
      again[#again + 1] = key
      replies[#replies + 1] = {'again', unpack(fields, 2)}
    else
      -- A retry beside the first try, in one script.
      replies[#replies + 1] = twin.reply
    end
  else
    if not bodies[realm] then bodies[realm] = {rows = {}, ops = {}, replies = {}}; order[#order + 1] = realm end
    local entry, ver = bodies[realm], expires > 0 and int(version) or '0'
    entry.rows[#entry.rows + 1] = table.concat(body)
    entry.ops[#entry.ops + 1] = key .. ':' .. digest .. ':' .. ver .. ':' .. int(expires) .. ':' .. int(now)
    drawn = drawn or expires > 0
    local reply = {'done', ver, int(now), int(expires)}
    fresh[key] = {request = digest, reply = reply}
    entry.replies[#entry.replies + 1] = {key, digest, reply}
    replies[#replies + 1] = reply
  end
end

local sealed = {}
while at <= #ARGV do local realm = take(); sealed[realm] = take() end

if #order > 0 and redis.call('XLEN', LOG) >= longest then return {'full'} end

-- H12: a retry writes too, on this connection, or WAIT would have nothing to wait for.
for _, key in ipairs(again) do redis.call('PEXPIRE', prefix .. 'op:' .. key, retention) end
for _, segment in ipairs(kept) do keep(unpack(segment)) end
for _, realm in ipairs(order) do
  local entry = bodies[realm]
  local seq, realm_seq, digest = append(m, realm, table.concat(entry.rows), table.concat(entry.ops, ' '))
  for _, op in ipairs(entry.replies) do
    local key, request, reply = unpack(op)
    reply[5], reply[6], reply[7] = seq, realm_seq, digest
    redis.call('SET', prefix .. 'op:' .. key, table.concat({request, unpack(reply, 2)}, ' '), 'PX', retention)
  end
  if sealed[realm] then
    local extra = string.find(news[realm], '0', 1, true) and news[realm] or ''
    local number, audit_digest = audit(realm, realm_seq, extra, sealed[realm])
    audited[#audited + 1], audited[#audited + 2], audited[#audited + 3] = realm, number, audit_digest
  end
end
if drawn then redis.call('HSET', META, 'clock', int(version)) end
if now > tonumber(m.high or '0') then redis.call('HSET', META, 'high', int(now)) end
return {'ok', int(now), m.seq or '0', replies, audited}
