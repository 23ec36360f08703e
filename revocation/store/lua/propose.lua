-- Puts back what a replica holds and the store lacks (H3). Idempotent as far as views go: the maximum wins.
-- Op records that are there already are left out of the log, or it would grow by a factor with every healing, since
-- each replica puts back what it read of all of them.
--
-- ARGV  log, version clock, op retention ms, realm, ops (as in a log record), number of groups, then for each:
--         kind, tag, segment, due, rows
-- Reply {'ok'} or {why}

local m = meta()
local closed = gate(m, ARGV[1])
if closed then return {closed} end
local realm, ops, body, at = ARGV[4], ARGV[5], {}, 7
for _ = 1, tonumber(ARGV[6]) do
  local kind, tag, segment, due, rows = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  body[#body + 1] = header(kind, tag, #rows / (kind < 64 and 12 or 28)) .. rows
  keep(realm, segment, due, rows)
  at = at + 5
end
local given, keys, lacking = {}, {}, {}
for op, key in string.gmatch(ops, '((%x+):%S+)') do
  given[#given + 1], keys[#keys + 1] = op, prefix .. 'op:' .. key
end
local known, taken = #keys > 0 and redis.call('MGET', unpack(keys)) or {}, {}
for i, op in ipairs(given) do
  if not known[i] and not taken[keys[i]] then lacking[#lacking + 1] = op end
  taken[keys[i]] = true
end
if #body > 0 or #lacking > 0 then
  ops = table.concat(lacking, ' ')
  local seq, realm_seq, digest = append(m, realm, table.concat(body), ops)
  for key, request, version, expires, at_ms in string.gmatch(ops, '(%x+):(%x+):(%d+):(%d+):(%d+)') do
    redis.call('SET', prefix .. 'op:' .. key,
      table.concat({request, version, at_ms, expires, seq, realm_seq, digest}, ' '), 'PX', ARGV[3], 'NX')
  end
end
if tonumber(ARGV[2]) > tonumber(m.clock or '0') then redis.call('HSET', META, 'clock', ARGV[2]) end
return {'ok'}
