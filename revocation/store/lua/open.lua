-- Opens a new history, if nobody else just did (H2). Nothing is re-proposed before.
--
-- ARGV  the log that the caller saw ('' for none), the new log, format, partitions, settle ms, then the ids of the
--       members that the caller knows, itself among them
-- Reply {'ok'} or {'late'}: somebody else opened; {'demoted'}; {'format', format, partitions} of a store laid out
-- otherwise

local id = identity()
if not id then return {'demoted'} end
local m = meta()
if m.log and (m.format ~= ARGV[3] or m.partitions ~= ARGV[4]) then return {'format', m.format, m.partitions} end
if (m.log or '') ~= ARGV[1] or (m.owner == id and m.suspect ~= '1') then return {'late'} end
if now + 1000 < tonumber(m.high or '0') then return {'clock'} end

local reg = tonumber(m.reg or '0') + 1
-- H7: the settle time is there for a store that was wiped, its registry with it. One that still knows its members
-- waits for them (H6) and needs no time.
local known = redis.call('HLEN', MEMBERS) > 0
local settled = (known or ARGV[5] == '0') and '1' or '0'
for i = 6, #ARGV do
  if redis.call('HEXISTS', MEMBERS, ARGV[i]) == 0 then
    save_member(ARGV[i], {inc = 0, log = '', reg = reg, read = 0, act = false, beat = now})
  end
end
redis.call('HSET', META, 'format', ARGV[3], 'partitions', ARGV[4], 'log', ARGV[2], 'owner', id, 'settled', settled,
  'opened', int(now), 'base', m.seq or '0', 'base_digest', m.digest or ZERO, 'prev', m.log or '',
  'full', m.suspect or '0', 'suspect', '0', 'usable', '0', 'reg', int(reg), 'high', int(now))
return {'ok'}
