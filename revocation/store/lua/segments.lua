-- Reads state for a load, by name and under the gate: any change of history restarts the load.
--
-- ARGV  log, realm, then 'names', start, stop; or 'rows', then name, offset, name, offset, ..., and the most bytes of
--       one piece last; or 'tail'
-- Reply {'ok', ...names}; {'ok', ...pieces}; {'ok', seq, digest, {realm, its number and digest, ...}}; or {why}
--
-- Names come with the latest expiry first: what expires leaves at the end, and moves nothing past a reader who pages.

local m = meta()
local closed = gate(m, ARGV[1])
if closed then return {closed} end
local realm, reply = ARGV[2], {'ok'}
if ARGV[3] == 'names' then
  local live = '(' .. math.floor(now / 1000)
  local names = redis.call('ZREVRANGEBYSCORE', prefix .. 'segs:' .. realm, '+inf', live, 'LIMIT', ARGV[4],
    ARGV[5] - ARGV[4] + 1)
  for _, name in ipairs(names) do reply[#reply + 1] = name end
  return reply
end
if ARGV[3] == 'tail' then
  return {'ok', m.seq or '0', m.digest or ZERO, redis.call('HGETALL', REALMS)}
end
local size = tonumber(ARGV[#ARGV])
for i = 4, #ARGV - 1, 2 do
  local key, from = prefix .. 'seg:' .. realm .. ':' .. ARGV[i], tonumber(ARGV[i + 1])
  reply[#reply + 1] = redis.call('GETRANGE', key, from, from + size - 1)
end
return reply
