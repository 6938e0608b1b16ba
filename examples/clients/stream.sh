#!/bin/sh
# Have a language model continue a text, and show it as it is generated: sh stream.sh TEXT [ADDRESS]
set -eu
if [ $# -lt 1 ]; then
    echo "usage: sh stream.sh TEXT [ADDRESS]" >&2
    exit 2
fi
text=$1
server=${2:-http://127.0.0.1:3000}

# Each event has its news in a line "data: ..."; the event "done" has the whole answer, "error" a problem.
curl --silent --show-error --no-buffer --fail-with-body --header "X-API-Key: ${OVLLAMA_API_KEY:-}" \
    --header "Content-Type: text/plain" --data-binary "$text" \
    "$server/infer/text/stream?max_tokens=32&temperature=0"
