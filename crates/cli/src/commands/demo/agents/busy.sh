# An agent at work: it says so ten times a second, until it is stopped.
set -u
[ -d .git ] || cd shop
while :; do
    echo "at work"
    sleep 0.1
done
