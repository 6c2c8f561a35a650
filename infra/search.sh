#!/bin/sh
# Serve a page to draw on, and the photos that `make demo` has indexed; DATA=real: those of `make demo DATA=real`. The page and its API
# answer on this machine alone. MODEL=NAME@ALIAS serves another champion of the root, INDEX=URI one index, PORT is another port.
set -eu
NAME=zsbir-demo
[ "${DATA:-toy}" != real ] || NAME=zsbir-demo-real
PORT=${PORT:-8280}

# A browser is opened where somebody sits before a screen, once the page answers.
if [ -t 1 ] && [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    python - "http://127.0.0.1:$PORT" <<'EOF' &
import sys, time, urllib.request, webbrowser
for attempt in range(120):
    try:
        urllib.request.urlopen(sys.argv[1] + "/readyz").close()
    except OSError:
        time.sleep(0.5)
    else:
        if attempt:  # what answers at once is another program on this port
            webbrowser.open(sys.argv[1])
        break
EOF
fi

if [ -n "${INDEX:-}" ]; then
    set -- --index "$INDEX"
else
    set -- --model "${MODEL:-$NAME@champion}"
fi
STATUS=0
python -m services.search "$@" --auth off --port "$PORT" || STATUS=$?
[ "$STATUS" != 2 ] || echo "search: \`make demo\` and \`make demo DATA=real\` make what is served here" >&2
exit "$STATUS"
