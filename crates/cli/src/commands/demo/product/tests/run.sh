#!/bin/sh
# Builds the service, asks it what stands in tests/cases.txt, and prints TAP.
set -eu
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
sh build.sh "$out/shop"

number=0
failed=0
while IFS='|' read -r name target header status body; do
    case $name in '' | '#'*) continue ;; esac
    number=$((number + 1))
    {
        printf 'GET %s HTTP/1.1\r\nHost: shop\r\n' "$target"
        [ -z "$header" ] || printf '%s\r\n' "$header"
        printf '\r\n'
    } >"$out/request"
    "$out/shop" --request <"$out/request" | tr -d '\r' >"$out/answer"
    got_status=$(sed -n '1s/^[^ ]* \([0-9]*\) .*/\1/p' "$out/answer")
    got_body=$(sed '1,/^$/d' "$out/answer")
    if [ "$got_status" = "$status" ] && [ "$got_body" = "$body" ]; then
        echo "ok $number - $name"
    else
        echo "not ok $number - $name"
        echo "# expected $status $body"
        echo "# received $got_status $got_body"
        failed=1
    fi
done <tests/cases.txt
echo "1..$number"
exit "$failed"
