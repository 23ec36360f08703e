-- Takes a member off the registry: a silent one (H10 quietly, H11 by force), or oneself on leaving (H9).
--
-- ARGV  log, member to strike, mode ('quiet', 'forced' or 'leave'), incarnation ('' for any), silent for ms, and for
--       the audit of the installation what the service sealed ('': nothing)
-- Reply {'ok', audit number, digest}, {'alive'}, {'gone'} or {why}
--
-- Silence is counted up to the last sane heartbeat of anybody (`high`): a clock that jumps ahead makes nobody silent.

local log, id, mode, inc, silent = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local m = meta()
local closed = gate(m, log)
if closed then return {closed} end
if went_back(m) then return {'clock'} end
if m.suspect == '1' then return {'reopen'} end
local record = member(id)
if not record then return {'gone'} end
if inc and record.inc ~= inc then return {'fenced'} end
-- In a history that is not usable its memory may hold what nothing else does.
if mode ~= 'forced' and m.usable ~= '1' then return {'wait'} end
if mode ~= 'leave' and tonumber(m.high or '0') - record.beat < silent then return {'alive'} end
redis.call('HDEL', MEMBERS, id)
-- Whoever strikes by force takes it that the store nodes that are missing are gone as well.
if mode == 'forced' then redis.call('HSET', META, 'nodes', m.replicas) end
note_usable(log, m.settled)
if (ARGV[6] or '') == '' then return {'ok', '0', ZERO} end
return {'ok', audit('*', '0', '', ARGV[6])}
