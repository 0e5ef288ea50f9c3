-- Posts JSON bodies, one a line of a file, in turn; writes counts and latencies (microseconds) as JSON at the end.
-- BENCH_PAUSE_MS: each connection is silent about so long between an answer and its next request.
-- wrk counts every answer of status 400 and above, and no server here answers with another one than 200.
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local bodies = {}
for line in io.lines(os.getenv("BENCH_BODY")) do
  bodies[#bodies + 1] = line
end
wrk.body = bodies[1]

local made, turn = {}, 0
function init(args)
  for position, body in ipairs(bodies) do
    made[position] = wrk.format(nil, nil, nil, body)
  end
end

function request()
  turn = turn % #made + 1
  return made[turn]
end

local pause = tonumber(os.getenv("BENCH_PAUSE_MS") or "0")
if pause > 0 then
  function delay()
    return math.random(0, 2 * pause)
  end
end

function done(summary, latency, requests)
  local out = assert(io.open(os.getenv("BENCH_RESULT"), "w"))
  out:write(string.format(
    '{"requests":%d,"duration_us":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,' ..
    '"p50_us":%.0f,"p95_us":%.0f,"p99_us":%.0f,"max_us":%.0f}',
    summary.requests, summary.duration, summary.errors.connect, summary.errors.read, summary.errors.write,
    summary.errors.status, summary.errors.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99), latency.max))
  out:close()
end
