#!/bin/sh
# Talk to a server with curl: sh curl.sh PICTURE [ADDRESS]
set -eu
picture=$1
server=${2:-http://127.0.0.1:3000}

case $picture in
    *.jpg | *.jpeg) type=image/jpeg ;;
    *.png) type=image/png ;;
    *.webp) type=image/webp ;;
    *.bmp) type=image/bmp ;;
    *) type=image/tiff ;;
esac

ask() {
    curl --silent --show-error --header "X-API-Key: ${OVLLAMA_API_KEY:-}" "$@"
    echo
}

echo "Is it ready?"
ask --fail "$server/health/ready"

echo "Which models are there?"
ask --fail "$server/models"

echo "What is in the picture? The active model answers; ?model=NAME asks another one."
ask --fail --header "Content-Type: $type" --data-binary "@$picture" "$server/infer/image"

echo "The same, drawn over the picture:"
ask --fail --header "Content-Type: $type" --header "Accept: image/png" --data-binary "@$picture" \
    --output drawn.png --write-out "%{content_type}, %{size_download} bytes in drawn.png" "$server/infer/image"

echo "What an error looks like:"
ask --header "Content-Type: text/plain" --data hello "$server/infer/image"
