-- Settings of one client of a realm, in the first partition. They are no revocations: a store that forgets them falls
-- back to the settings of the realm.
--
-- ARGV  log, realm, most clients, sealed audit entry of the change ('': none), then names under which the client may be
--       listed, the current one first, then the settings to write last ('' to read)
-- Reply {'ok', settings or '', audit number, digest}, {'full'} or {why}

local m = meta()
local closed = gate(m, ARGV[1])
if closed then return {closed} end
local key, found = prefix .. 'clients:' .. ARGV[2], ''
for i = 5, #ARGV - 1 do
  local kept = redis.call('HGET', key, ARGV[i])
  if found == '' and kept then found = kept end
end
local new = ARGV[#ARGV]
if new == '' then return {'ok', found, '0', ZERO} end
if found == '' and redis.call('HLEN', key) >= tonumber(ARGV[3]) then return {'full'} end
for i = 6, #ARGV - 1 do redis.call('HDEL', key, ARGV[i]) end
redis.call('HSET', key, ARGV[5], new)
local number, digest = '0', ZERO
if ARGV[4] ~= '' then number, digest = audit(ARGV[2], '0', '', ARGV[4]) end
return {'ok', new, number, digest}
