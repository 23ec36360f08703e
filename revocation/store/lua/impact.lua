-- Reads what there is of sessions, a little at a time: the indexes of a realm, and what lies in them. Changes nothing.
--
-- ARGV  log, realm, then
--         'names', cursor, how many keys to go through          reply {'ok', next cursor ('0': all seen), {name, ...}}
--         'entries', clients (8 bytes each, '' for all), most entries to go through, then names and offsets
--                                    reply {'ok', now, {entries gone through, entry, record, entry, record, ...}, ...}
--       Of entries only those whose record is a live one are in the reply. SCAN may name an index twice.
--       {why} if the gate is closed

local m = meta()
local closed = gate(m, ARGV[1])
if closed then return {closed} end
local start = prefix .. 'idx:' .. ARGV[2] .. ':'

if ARGV[3] == 'names' then
  local found, names = redis.call('SCAN', ARGV[4], 'MATCH', start .. '*', 'COUNT', ARGV[5]), {}
  for _, key in ipairs(found[2]) do names[#names + 1] = string.sub(key, #start + 1) end
  return {'ok', found[1], names}
end

local clients, left, reply = ARGV[4], tonumber(ARGV[5]), {'ok', int(now)}

local function wanted(entry)
  if clients == '' then return true end
  for i = 1, #clients, 8 do
    if string.sub(entry, 9, 16) == string.sub(clients, i, i + 7) then return true end
  end
  return false
end

for i = 6, #ARGV, 2 do
  local part = {0}
  if left > 0 then
    local entries = redis.call('ZRANGEBYSCORE', start .. ARGV[i], '(' .. int(now), '+inf', 'LIMIT', ARGV[i + 1], left)
    left, part[1] = left - #entries, #entries
    for _, entry in ipairs(entries) do
      local record = wanted(entry) and redis.call('GET', session_record(ARGV[2], record_of_entry(entry)))
      if record and string.sub(record, 1, 1) == 'S' then
        part[#part + 1] = entry
        part[#part + 1] = record
      end
    end
  end
  reply[#reply + 1] = part
end
return reply
