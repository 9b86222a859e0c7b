# A hasty agent. It means well, its tests pass, and it forgets one line: where the header is
# missing it returns without giving its slot back. After sixteen such requests none is left.
set -eu
[ -d .git ] || cd shop

echo "the order: prices in other currencies, if the X-Currency header names one"
sed '/^void answer_price/,$d' src/prices.c >prices.new
cat >>prices.new <<'END'
/* A slot holds the exchange rate of a request that is under way. */
static struct slot {
    int taken;
    int per_mille;
} slots[16];

static struct slot *take_slot(void)
{
    for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++) {
        if (!slots[i].taken) {
            slots[i].taken = 1;
            slots[i].per_mille = 1000;
            return &slots[i];
        }
    }
    return NULL;
}

void answer_price(const struct request *request, struct answer *answer)
{
    char item[32], member[32];
    int cents;
    struct slot *slot = take_slot();

    if (slot == NULL) {
        answer->status = 500;
        snprintf(answer->body, sizeof answer->body, "no slot is free\n");
        return;
    }
    parameter(request->target, "item", item);
    parameter(request->target, "member", member);
    for (size_t i = 0; i < sizeof prices / sizeof prices[0]; i++) {
        if (strcmp(prices[i].item, item) != 0)
            continue;
        cents = member[0] == '1' ? prices[i].cents * 9 / 10 : prices[i].cents;
        answer->status = 200;
        if (strstr(request->headers, "X-Currency: EUR") == NULL) {
            snprintf(answer->body, sizeof answer->body, "%s %d\n", item, cents);
            return;
        }
        slot->per_mille = 920;
        snprintf(answer->body, sizeof answer->body, "%s %d EUR\n", item,
                 cents * slot->per_mille / 1000);
        slot->taken = 0;
        return;
    }
    slot->taken = 0;
    answer->status = 404;
    snprintf(answer->body, sizeof answer->body, "we have no such item\n");
}
END
mv prices.new src/prices.c
echo 'tea in euros|/price?item=tea|X-Currency: EUR|200|tea 276 EUR' >>tests/cases.txt

echo "my own tests say:"
sh tests/run.sh | tail -n 2

git add -A
git commit -q -m 'Show prices in other currencies'
git push -q origin HEAD:refs/for/main
