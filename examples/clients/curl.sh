#!/bin/sh
# Talk to a server with curl: sh curl.sh PICTURE [ADDRESS]
set -eu
if [ $# -lt 1 ]; then
    echo "usage: sh curl.sh PICTURE [ADDRESS]" >&2
    exit 2
fi
picture=$1
server=${2:-http://127.0.0.1:3000}

if [ ! -r "$picture" ]; then
    echo "curl.sh: $picture: there is no such file, or it cannot be read" >&2
    exit 1
fi

case $picture in
    *.jpg | *.jpeg) type=image/jpeg ;;
    *.png) type=image/png ;;
    *.webp) type=image/webp ;;
    *.bmp) type=image/bmp ;;
    *) type=image/tiff ;;
esac

ask() {
    curl --silent --show-error --write-out '\n' --header "X-API-Key: ${OVLLAMA_API_KEY:-}" "$@"
}

echo "Is it ready?"
ask --fail-with-body "$server/health/ready"

echo "Which models are there?"
ask --fail-with-body "$server/models"

echo "What is in the picture? The active model answers; ?model=NAME asks another one."
ask --fail-with-body --header "Content-Type: $type" --data-binary "@$picture" "$server/infer/image"

echo "The same, drawn over the picture:"
ask --fail --header "Content-Type: $type" --header "Accept: image/png" --data-binary "@$picture" \
    --output drawn.png --write-out "%{content_type}, %{size_download} bytes in drawn.png\n" "$server/infer/image"

echo "What an error looks like:"
ask --header "Content-Type: text/plain" --data hello "$server/infer/image"
