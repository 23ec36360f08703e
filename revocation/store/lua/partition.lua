-- Common to all scripts of a partition; redis.py puts it in front of each of them.
--
-- KEYS[1]  the partition's meta key. Every other key has the same prefix, and so the same hash tag.
--
-- Keys of a partition
--   meta            hash: format, partitions, log, owner, settled, opened, base, base_digest, prev, full, seq, digest,
--                   clock, high, reg, usable, suspect, nodes (store replicas that were connected at some time),
--                   epoch
--   members         hash: member id -> JSON {inc, log (confirmed), reg, read, act, beat, own, at, drawn}; beat is the
--                   store's time of its last sign of life, own what its own clock said then, at the number of the log
--                   up to which its view held it then, drawn the nonce of the process and its incarnation when it
--                   confirmed last (release 0.1.0 leaves it as it is)
--   holds           hash: id of a process that loads -> "<seq> <until ms>": the log is not trimmed past it
--   log             stream, ids "<seq>-0": realm r, number q and digest d of the realm, digest p of the partition,
--                   time t, rows b, ops o
--   realms          hash: realm -> "<seq> <digest>"
--   segs:<realm>    zset: segment name -> when it has expired (seconds)
--   seg:<realm>:<n> string: rows, one after the other. A segment is named <kind>-<key tag>-<slot of expiry>
--   op:<key>        string: what an operation answered, for its retries
--   ses:<realm>:<n> string: a session's record (see session.lua). It is named <key tag>:<fingerprint in hex>, so that
--                   whoever has a row of the session can find it
--   idx:<realm>:<n> zset: entry of a session -> when it expires (ms), one for each subject
--   clients:<realm> hash: name of a client -> its settings
--
-- A script validates first and writes last: a script that fails half-way keeps what it wrote.

local META = KEYS[1]
local prefix = string.sub(META, 1, -5)
local MEMBERS, LOG, REALMS = prefix .. 'members', prefix .. 'log', prefix .. 'realms'
local ZERO = string.rep('0', 40)

local function int(number) return string.format('%.0f', number) end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Changes with every start and every promotion of a server (H1); nil on a server that is no primary.
-- Also: how many store replicas are connected.
local function identity()
  local info = redis.call('INFO', 'replication')
  if not string.find(info, 'role:master', 1, true) then return nil end
  return string.match(info, 'master_replid:(%x+)'), string.match(info, 'connected_slaves:(%d+)')
end

local function meta()
  local flat, read = redis.call('HGETALL', META), {}
  for i = 1, #flat, 2 do read[flat[i]] = flat[i + 1] end
  return read
end

-- H1: the history must have been opened under the identity of the process that this script runs on, and be the
-- caller's. nil if so, else why not.
local function gate(m, log)
  local id, replicas = identity()
  if not id then return 'demoted' end
  m.replicas = replicas
  if not m.log or m.owner ~= id then return 'reopen' end
  if m.log ~= log then return 'heal' end
  return nil
end

-- Has another member's clock already been well past the caller's? Then it is the caller's that is wrong.
local function contradicted(caller, skew)
  for _, text in ipairs(redis.call('HVALS', MEMBERS)) do
    if (cjson.decode(text).own or 0) - caller > skew / 2 then return true end
  end
  return false
end

-- Sane time: the store's clock never goes back, and is not far from the caller's. A clock that was ahead may have
-- expired keys early, so that what was seen makes the history suspect: it is opened anew when time is sane again.
local function went_back(m) return now + 1000 <= tonumber(m.high or '0') end

local function sane(m, caller, skew)
  if went_back(m) or now - caller > skew then
    if m.suspect ~= '1' and (went_back(m) or not contradicted(caller, skew)) then
      redis.call('HSET', META, 'suspect', '1')
    end
    return 'clock'
  end
  if caller - now > skew then return 'clock' end
  if m.suspect == '1' then return 'reopen' end
  return nil
end

local function member(id)
  local text = redis.call('HGET', MEMBERS, id)
  return text and cjson.decode(text)
end

local function save_member(id, record) redis.call('HSET', MEMBERS, id, cjson.encode(record)) end

-- Lists members that the caller knows of, each with the next number of a registration (H4, H8).
local function register(m, ids)
  local reg = tonumber(m.reg or '0')
  for _, id in ipairs(ids) do
    if redis.call('HEXISTS', MEMBERS, id) == 0 then
      reg = reg + 1
      save_member(id, {inc = 0, log = '', reg = reg, read = 0, act = false, beat = now})
    end
  end
  m.reg = int(reg)
  redis.call('HSET', META, 'reg', m.reg)
end

-- H6: settled, and every member has confirmed this history.
local function note_usable(log, settled)
  local usable = settled == '1'
  for _, text in ipairs(redis.call('HVALS', MEMBERS)) do
    usable = usable and cjson.decode(text).log == log
  end
  redis.call('HSET', META, 'usable', usable and '1' or '0')
end

-- May this member acknowledge and vouch (H6, H8)? nil if so, else why not. `newcomer`: also if it is not active yet.
local function standing(m, id, inc, newcomer)
  local record = member(id)
  if not record then return 'heal' end
  if record.inc > inc then return 'fenced' end
  if record.inc < inc or record.log ~= m.log then return 'heal' end
  if m.usable ~= '1' or not (record.act or newcomer) then return 'wait' end
  return nil
end

local function session_record(realm, name) return prefix .. 'ses:' .. realm .. ':' .. name end

local function hex(bytes)
  return (string.gsub(bytes, '.', function(byte) return string.format('%02x', string.byte(byte)) end))
end

-- The name of the record of an entry of a subject's index.
local function record_of_entry(entry)
  return int(struct.unpack('<I2', entry, 17)) .. ':' .. hex(string.sub(entry, 19, 26))
end

-- Rows of sessions end the records, whichever path they come by, a healing too. What stays says why, as long as the
-- rows live: a refresh in flight finds another record than it read, and a later one is told.
local function is_session(realm, tag, row)
  local record = session_record(realm, tag .. ':' .. hex(string.sub(row, 1, 8)))
  return redis.call('GETRANGE', record, 0, 0) == 'S' and record
end

local function end_sessions(realm, tag, due, rows, why)
  for i = 1, #rows, 12 do
    local record = is_session(realm, tag, string.sub(rows, i, i + 7))
    if record then
      if due == 'never' then redis.call('DEL', record) else
        redis.call('SET', record, 'E' .. why, 'PXAT', due * 1000)
      end
    end
  end
end

-- Appends rows to a segment. `due` is when all of it has expired, in seconds, or 'never'. `why` sessions end.
local function keep(realm, name, due, rows, why)
  if string.sub(name, 1, 2) == '2-' then
    end_sessions(realm, string.match(name, '^2%-(%d+)'), due, rows, why or 'logout')
  end
  local key = prefix .. 'seg:' .. realm .. ':' .. name
  local length = redis.call('APPEND', key, rows)
  if due ~= 'never' then redis.call('PEXPIREAT', key, due * 1000) end
  local index = prefix .. 'segs:' .. realm
  redis.call('ZADD', index, due == 'never' and '+inf' or due, name)
  if length == #rows then redis.call('ZREMRANGEBYSCORE', index, '-inf', math.floor(now / 1000) - 1) end
end

-- One record of a realm: number and digest of the realm and of the partition go on by one.
-- Returns the numbers of the partition and of the realm, and the realm's digest.
local function append(m, realm, body, ops)
  local seq, digest = 0, ZERO
  local known = redis.call('HGET', REALMS, realm)
  if known then
    local number, hex = string.match(known, '^(%d+) (%x+)$')
    seq, digest = tonumber(number), hex
  end
  seq = seq + 1
  digest = redis.sha1hex(digest .. body)
  m.seq = int(tonumber(m.seq or '0') + 1)
  m.digest = redis.sha1hex((m.digest or ZERO) .. realm .. ' ' .. int(seq) .. ' ' .. digest .. ' ' .. int(now) .. ' ' .. ops)
  redis.call('HSET', REALMS, realm, int(seq) .. ' ' .. digest)
  redis.call('XADD', LOG, m.seq .. '-0', 'r', realm, 'q', int(seq), 'd', digest, 'p', m.digest, 't', int(now),
    'b', body, 'o', ops)
  redis.call('HSET', META, 'seq', m.seq, 'digest', m.digest)
  return m.seq, int(seq), digest
end

local function u64(number)
  return struct.pack('<I4I4', number % 4294967296, math.floor(number / 4294967296))
end

local function header(kind, tag, count) return struct.pack('<I1I2I4', kind, tag, count) end
