# The same honest agent, with its second order.
set -eu
[ -d .git ] || cd shop

echo "the order: members get a tenth off"
sed -e 's/^    char item\[32\];/    char item[32], member[32];/' \
    -e '/parameter(request->target, "item", item);/a\
    parameter(request->target, "member", member);' \
    -e "s/item, prices\[i\].cents);/item,\\
                     member[0] == '1' ? prices[i].cents * 9 \/ 10 : prices[i].cents);/" \
    src/prices.c >prices.new
mv prices.new src/prices.c
echo 'members get a tenth off|/price?item=tea&member=1||200|tea 270' >>tests/cases.txt

echo "my own tests say:"
sh tests/run.sh | tail -n 2

git add -A
git commit -q -m 'Give members a tenth off'
git push -q origin HEAD:refs/for/main
