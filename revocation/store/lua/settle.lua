-- The settle time is over (H7). ARGV log, settle ms. Reply {'ok'}, {'early'} or {why}

local m = meta()
local closed = gate(m, ARGV[1])
if closed then return {closed} end
if now - tonumber(m.opened) < tonumber(ARGV[2]) then return {'early'} end
redis.call('HSET', META, 'settled', '1')
note_usable(m.log, '1')
return {'ok'}
