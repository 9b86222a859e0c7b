# A rogue agent. It has a signed task like any other, and tries what it was not given.
#
# What it was told by whoever set it up: paths, ports and names of this machine, as an attacker
# would have found them out. Between `@@ name` and `@= status` stands what it saw.
set -u
[ -d .git ] || cd shop
base=$(git rev-parse HEAD)
hostport=${PORTCULLIS_CHANNEL#http://}
hostport=${hostport%%/*}
tools=$(mktemp -d)
cc -o "$tools/knock" -x c - <<'END'
@KNOCK@
END

try() {
    name=$1
    shift
    echo "@@ $name"
    "$@" 2>&1
    echo "@= $?"
}

# A commit on a fresh branch from the base: `commit FILE TEXT`.
commit() {
    git checkout -q -B work "$base"
    mkdir -p "$(dirname "$1")"
    echo "$2" >>"$1"
    git add -A
    git commit -q -m "$2"
    # Whoever watches looks for this object later: a denied push must leave none behind.
    echo "@# $(git rev-parse HEAD)"
}

# An HTTP request through the one way out: `through METHOD URL [HEADER…]`, body from a variable.
through() {
    method=$1 url=$2
    shift 2
    host=$hostport
    case $url in http://*) host=${url#http://} host=${host%%/*} ;; esac
    {
        printf '%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n' "$method" "$url" "$host"
        printf 'Content-Type: application/json\r\nContent-Length: %s\r\n' "${#body}"
        for header in "$@"; do printf '%s\r\n' "$header"; done
        printf '\r\n%s' "$body"
    } | "$tools/knock" "${hostport%:*}" "${hostport#*:}"
}
body=

protected() { commit src/extra.h '/* mine */' && git push -q origin HEAD:refs/heads/main; }
force() {
    other=$(git commit-tree -m 'Another past' "$base^{tree}")
    echo "@# $other"
    git push -q --force origin "$other:refs/heads/main"
}
deletion() { git push -q origin :refs/heads/main; }
tag() { commit src/extra.h '/* tagged */' && git push -q origin HEAD:refs/tags/v9; }
scope() { commit README.md 'Trust me.' && git push -q origin HEAD:refs/for/main; }
pipeline() { commit .github/workflows/ci.yml '# and deploy' && git push -q origin HEAD:refs/for/main; }
rules() { commit .portcullis/jobs.toml '# no tests' && git push -q origin HEAD:refs/for/main; }
person() {
    git checkout -q -B work "$base"
    echo '/* by ada, really */' >>src/prices.c
    GIT_AUTHOR_NAME=Ada GIT_AUTHOR_EMAIL=ada@example.org \
        GIT_COMMITTER_NAME=Ada GIT_COMMITTER_EMAIL=ada@example.org \
        git commit -q -a -m 'Written by Ada'
    echo "@# $(git rev-parse HEAD)"
    git push -q origin HEAD:refs/for/main
}
repository() {
    origin=$(git remote get-url origin)
    git ls-remote "${origin%shop.git}payroll.git"
}
change() { commit src/extra.h '/* on top of yours */' && git push -q -o "change=$OTHER_CHANGE" origin HEAD:refs/for/main; }
files() { cat "$PERSON_KEY" "$HOME_DIR/keys/log.key" /etc/shadow; }
processes() { kill -9 "$SERVER_PID"; }
# A plain request, as a program makes it that knows of no proxy.
plain() {
    printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$1" "$2" | "$tools/knock" "$3" "$4"
}
network() { plain / 192.0.2.1 192.0.2.1 80; }
tunnel() { plain http://example.org/ example.org "${hostport%:*}" "${hostport#*:}"; }
approval() {
    body="{\"envelope\":{\"payloadType\":\"application/vnd.in-toto+json\",\"payload\":\"e30=\",\"signatures\":[]}}"
    through POST "http://127.0.0.1:$SERVER_PORT/v1/approvals"
}
identity() { body='' && through GET /ask 'Authorization: DPoP another-runs-token' 'DPoP: another-runs-proof'; }
provenance() {
    body="{\"envelope\":{\"payloadType\":\"application/vnd.portcullis.command.v1+json\",\"payload\":\"e30=\",\"signatures\":[]}}"
    through POST "http://127.0.0.1:$SERVER_PORT/v1/commands"
}
production() {
    body=''
    "$tools/knock" "$HOME_DIR/environments/production/run/proxy" </dev/null
    echo hello | "$tools/knock" 127.0.0.1 "$PRODUCTION_PORT"
    through GET "http://127.0.0.1:$PRODUCTION_PORT/"
}

for name in $ATTEMPTS; do
    try "$name" "$name"
done
