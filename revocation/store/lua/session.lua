-- Commits one step of one session: its record, its place in the index of its subject, who is ended with it, the log
-- record and the op record, together or not at all. What the step is was decided outside, on what a look had seen; here
-- it is made sure that all of that still holds.
--
-- A record is 'S', a count (1 byte), a stamp (12 bytes), the rest sealed; or 'E' and why it ended. An entry of the
-- index is 46 bytes: opened ms u64 big-endian, client 8, key tag u16, fingerprint 8, life of its tokens u32, handle 16.
--
-- ARGV  log, member, incarnation, caller's ms, skew ms, op retention ms, longest log, then names and values:
--   realm       applied, watched: what the caller's view holds of the log, and the fingerprints (8 bytes each) whose
--               later change would have changed the decision
--   until       the decision holds before this moment; 0: always
--   op, digest  as in commit.lua; absent without an op id
--   record, expect: its name; the stamp it was decided on, '' if there must be no record, '*' for whatever there is
--   value, due, ends: the new record, when it expires and when the session ends by itself (ms); or
--   count       the cap on answers of one generation; or why: it ends
--   entry, indexes (names with a blank between, the own one first); forget: entries that are known to be dead
--   clients (8 bytes each), of_subject, of_client, overflow: limits for a new session; 0 is none
--   slack, slot: of rows made here; row, segment, row_due: the row of an ended session
--   version, horizon, cutoff_tag, cutoff: a subject cutoff, fingerprints (8 bytes each)
--   audit: what the service sealed, for the case that something is revoked
-- Reply {'ok', now, seq, rows, realm seq, realm digest, count, audit number ('0': none), its digest};
--       {'again', now, seq, ...fields of the op record};
--       {'behind', seq}: apply the log up to there and decide again; {'changed'}, {'late'}, {'limit'}, {'capped'},
--       {'conflict'}; {why} as in commit.lua

local m, a = meta(), {}
for i = 8, #ARGV, 2 do a[ARGV[i]] = ARGV[i + 1] end
local closed = gate(m, ARGV[1]) or sane(m, tonumber(ARGV[4]), tonumber(ARGV[5]))
  or standing(m, ARGV[2], tonumber(ARGV[3]))
if closed then return {closed} end
local retention, longest, realm = tonumber(ARGV[6]), tonumber(ARGV[7]), a.realm
local function number(name) return tonumber(a[name] or '0') end

local op = a.op and prefix .. 'op:' .. a.op
local known = op and redis.call('GET', op)
if known then
  local fields = {}
  for field in string.gmatch(known, '%S+') do fields[#fields + 1] = field end
  if fields[1] ~= a.digest then return {'conflict'} end
  redis.call('PEXPIRE', op, retention)
  return {'again', int(now), m.seq or '0', unpack(fields, 2)}
end
if number('until') > 0 and now >= number('until') then return {'late'} end

-- Does the log hold anything that the caller's view lacks and that could have changed its mind?
local function unseen()
  local missing = tonumber(m.seq or '0') - number('applied')
  if missing == 0 or a.watched == '' then return false end
  if missing < 0 or missing > 256 then return true end
  local entries = redis.call('XRANGE', LOG, int(number('applied') + 1) .. '-0', '+')
  if #entries ~= missing then return true end
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    for i = 1, fields[2] == realm and #a.watched or 0, 8 do
      if string.find(fields[12], string.sub(a.watched, i, i + 7), 1, true) then return true end
    end
  end
  return false
end
if unseen() then return {'behind', m.seq} end

local record = session_record(realm, a.record)
local value = redis.call('GET', record)
if a.expect == '' then
  if value then return {'changed'} end
elseif a.expect ~= '*' then
  if not value or string.sub(value, 1, 1) ~= 'S' or string.sub(value, 3, 14) ~= a.expect then return {'changed'} end
end
local count = a.count and string.byte(value, 2) + 1 or 0
if a.count and count > number('count') then return {'capped'} end
if a.version and number('version') <= tonumber(m.clock or '0') then return {'changed'} end

-- The live entries of the subject: [{opened, entry, index, of the same client}], oldest first. A record that is gone
-- or ended was ended by a path that does not know the index.
local indexes, dead = {}, {}
for name in string.gmatch(a.indexes or '', '%S+') do indexes[#indexes + 1] = prefix .. 'idx:' .. realm .. ':' .. name end
for i = 1, #(a.forget or ''), 46 do dead[string.sub(a.forget, i, i + 45)] = true end

local function live_entries()
  local live = {}
  for _, index in ipairs(indexes) do
    for _, entry in ipairs(redis.call('ZRANGEBYSCORE', index, '(' .. int(now), '+inf')) do
      if not dead[entry] then
        if redis.call('GETRANGE', session_record(realm, record_of_entry(entry)), 0, 0) == 'S' then
          local high, low = struct.unpack('>I4I4', entry)
          local client, same = string.sub(entry, 9, 16), false
          for i = 1, #a.clients, 8 do same = same or client == string.sub(a.clients, i, i + 7) end
          live[#live + 1] = {high * 4294967296 + low, entry, index, same}
        else
          dead[entry] = true
        end
      end
    end
  end
  table.sort(live, function(x, y) return x[1] < y[1] end)
  return live
end

-- Which of them must go, so that there is room for one more; nil if none may go.
local function crowded_out()
  local total = 0
  for _, index in ipairs(indexes) do total = total + redis.call('ZCARD', index) end
  local lowest = math.min(number('of_subject') > 0 and number('of_subject') or math.huge,
    number('of_client') > 0 and number('of_client') or math.huge)
  if total < lowest then return {} end
  local live, mine, out, gone = live_entries(), {}, {}, {}
  for _, one in ipairs(live) do if one[4] then mine[#mine + 1] = one end end
  local function take(from, limit)
    local excess = limit > 0 and #from - limit + 1 or 0
    for _, one in ipairs(from) do if gone[one[2]] then excess = excess - 1 end end
    for _, one in ipairs(from) do
      if excess > 0 and not gone[one[2]] and #out < 500 then
        gone[one[2]], excess, out[#out + 1] = true, excess - 1, one
      end
    end
  end
  take(mine, number('of_client'))
  take(live, number('of_subject'))
  if #out > 0 and a.overflow ~= 'evict' then return nil end
  return out
end

local evicted = {}
if a.clients then evicted = crowded_out() end
if not evicted then return {'limit'} end

local body, expires = {}, 0
if a.row or a.version or #evicted > 0 then
  if redis.call('XLEN', LOG) >= longest then return {'full'} end
end

-- From here on only writes.
for _, one in ipairs(evicted) do
  local entry, index = one[2], one[3]
  local tag = struct.unpack('<I2', entry, 17)
  local until_s = math.floor(now / 1000) + struct.unpack('<I4', entry, 27) + number('slack') + 1
  local row, slot = string.sub(entry, 19, 26) .. struct.pack('<I4', until_s), math.floor(until_s / number('slot'))
  keep(realm, '2-' .. int(tag) .. '-' .. int(slot), int((slot + 1) * number('slot')), row, 'limit')
  body[#body + 1] = header(2, tag, 1) .. row
  redis.call('ZREM', index, entry)
end
if a.row then
  local kind, tag = string.match(a.segment, '^(%d+)-(%d+)')
  keep(realm, a.segment, a.row_due, a.row, a.why)
  body[#body + 1] = header(tonumber(kind), tonumber(tag), #a.row / 12) .. a.row
  expires = struct.unpack('<I4', a.row, 9)
end
if a.version then
  expires = math.floor(now / 1000) + number('horizon') + 1
  local rest, rows, slot = struct.pack('<I4', expires) .. u64(number('version')) .. u64(now), {},
    math.floor(expires / number('slot'))
  for i = 1, #a.cutoff, 8 do rows[#rows + 1] = string.sub(a.cutoff, i, i + 7) .. rest end
  keep(realm, '64-' .. a.cutoff_tag .. '-' .. int(slot), int((slot + 1) * number('slot')), table.concat(rows))
  body[#body + 1] = header(64, tonumber(a.cutoff_tag), #rows) .. table.concat(rows)
  redis.call('HSET', META, 'clock', a.version)
end
if a.value then redis.call('SET', record, a.value, 'PXAT', a.due) end
if a.count then redis.call('SETRANGE', record, 1, string.char(count)) end
if a.why then dead[a.entry] = true end
for entry in pairs(dead) do
  for _, index in ipairs(indexes) do redis.call('ZREM', index, entry) end
end
if indexes[1] then
  redis.call('ZREMRANGEBYSCORE', indexes[1], '-inf', int(now))
  if a.value then
    redis.call('ZADD', indexes[1], a.ends, a.entry)
    -- The index lives as long as the last of its entries, and needs nobody to clean it up.
    if redis.call('PEXPIRETIME', indexes[1]) < number('ends') then redis.call('PEXPIREAT', indexes[1], a.ends) end
  end
end
local rows, realm_seq, digest = table.concat(body), '0', ZERO
local audit_number, audit_digest = '0', ZERO
local text = a.op and table.concat({a.op, a.digest, a.version or '0', int(expires), int(now)}, ':')
if rows ~= '' then
  -- The op id of an opening is not in the log: a store that forgot the session must forget that it was opened, too.
  local _
  _, realm_seq, digest = append(m, realm, rows, a.expect ~= '' and text or '')
  if a.audit then
    audit_number, audit_digest = audit(realm, realm_seq, #evicted > 0 and int(#evicted) or '', a.audit)
  end
end
if op then
  redis.call('SET', op, table.concat({a.digest, a.version or '0', int(now), int(expires), m.seq or '0', realm_seq,
    digest}, ' '), 'PX', retention)
end
if now > tonumber(m.high or '0') then redis.call('HSET', META, 'high', int(now)) end
return {'ok', int(now), m.seq or '0', rows, realm_seq, digest, int(count), audit_number, audit_digest}
