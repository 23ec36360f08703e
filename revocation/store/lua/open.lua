-- Opens a new history, if nobody else just did (H2). Nothing is re-proposed before.
--
-- ARGV  the log that the caller saw ('' for none), the new log, format, partitions, settle ms, the highest epoch
--       that the caller has been in (a history below it is a past one), then the ids of the members that it knows,
--       itself among them
-- Reply {'ok'} or {'late'}: somebody else opened; {'demoted'}; {'format', format, partitions} of a store laid out
-- otherwise; {'clock'}

local id = identity()
if not id then return {'demoted'} end
local m, epoch = meta(), tonumber(ARGV[6])
if m.log and (m.format ~= ARGV[3] or m.partitions ~= ARGV[4]) then return {'format', m.format, m.partitions} end
if (m.log or '') ~= ARGV[1] or (m.owner == id and m.suspect ~= '1' and epoch <= tonumber(m.epoch or '0')) then return {'late'} end
if went_back(m) then return {'clock'} end

-- Without the meta key a log that is left over belongs to nothing, and its ids would be in the way.
if not m.log then redis.call('DEL', LOG) end
-- H7: the settle time is there for a store that was wiped, its registry with it. One that still knows its members
-- waits for them (H6) and needs no time, unless it was itself still waiting; or unless a process opens it that has
-- been in no history (epoch 0): it knows nobody itself, and the store may be a copy from before others came.
local known = redis.call('HLEN', MEMBERS) > 0 and m.settled == '1' and epoch > 0
local settled = (known or ARGV[5] == '0') and '1' or '0'
register(m, {unpack(ARGV, 7)})
-- The digest goes on from another one than before: no record of this history fits behind one of the last.
redis.call('HSET', META, 'format', ARGV[3], 'partitions', ARGV[4], 'log', ARGV[2], 'owner', id, 'settled', settled,
  'opened', int(now), 'base', m.seq or '0', 'base_digest', m.digest or ZERO, 'prev', m.log or '',
  'digest', redis.sha1hex((m.digest or ZERO) .. ARGV[2]),
  'epoch', int(math.max(epoch, tonumber(m.epoch or '0')) + 1), 'full', m.suspect or '0', 'suspect', '0', 'usable', '0')
return {'ok'}
