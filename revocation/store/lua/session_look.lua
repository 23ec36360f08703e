-- Reads sessions and says what time it is: a barrier and a read in one. If a WAIT follows it writes something (H12).
--
-- ARGV  log, member, incarnation, caller's ms, skew ms, '1' if the caller will wait for copies, realm, op key ('' for
--       none), indexes (names with a blank between), at least (entries are wanted only if there are so many), 'records'
--       to have the record of each entry ('' for entries alone), then names of records
-- Reply {'ok', now, seq, version clock, op record or '', {entry, record or '', entry, record or '', ...}, ...records}
--       or {why} as in commit.lua

local m = meta()
local closed = gate(m, ARGV[1]) or sane(m, tonumber(ARGV[4]), tonumber(ARGV[5]))
  or standing(m, ARGV[2], tonumber(ARGV[3]))
if closed then return {closed} end
if ARGV[6] ~= '0' then redis.call('HSET', META, 'high', int(math.max(now, tonumber(m.high or '0')))) end
local realm, entries = ARGV[7], {}
local known = ARGV[8] ~= '' and redis.call('GET', prefix .. 'op:' .. ARGV[8]) or ''
local reply = {'ok', int(now), m.seq or '0', m.clock or '0', known, entries}

local indexes, total = {}, 0
for name in string.gmatch(ARGV[9], '%S+') do
  indexes[#indexes + 1] = prefix .. 'idx:' .. realm .. ':' .. name
  total = total + redis.call('ZCARD', indexes[#indexes])
end
if total >= tonumber(ARGV[10]) then
  for _, index in ipairs(indexes) do
    for _, entry in ipairs(redis.call('ZRANGEBYSCORE', index, '(' .. int(now), '+inf')) do
      entries[#entries + 1] = entry
      entries[#entries + 1] = ARGV[11] == 'records'
        and redis.call('GET', session_record(realm, record_of_entry(entry))) or ''
    end
  end
end
for i = 12, #ARGV do reply[#reply + 1] = redis.call('GET', session_record(realm, ARGV[i])) or '' end
return reply
