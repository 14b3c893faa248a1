-- Headers come from a file, so that no token is on a command line; the result goes out as one JSON line.
-- With BENCH_VARIED=1 no two requests have the same head: the path, the query and a field change with each.
local before, after
local count = 0

function init()
    local file = os.getenv("BENCH_HEADERS")
    for line in io.lines(file) do
        local name, value = line:match("^([^:]+): (.*)$")
        wrk.headers[name] = value
    end
    if os.getenv("BENCH_VARIED") == "1" then
        local whole = wrk.format("GET", "@")
        local at = whole:find("@", 1, true)
        before, after = whole:sub(1, at - 1) .. wrk.path .. "/", whole:sub(at + 1, -3) .. "X-Count: "
        request = varied -- left undefined otherwise, so that wrk sends one prepared request again and again
    end
end

function varied()
    count = count + 1
    return before .. count % 1000 .. "?n=" .. count .. after .. count .. "\r\n\r\n"
end

function done(summary, latency)
    local e = summary.errors
    io.write(string.format(
        'RESULT {"requests":%d,"us":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"errors":%d}\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
        e.connect + e.read + e.write + e.status + e.timeout))
end
