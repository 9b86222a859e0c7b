/* Prices in cents. */
#include <stdio.h>
#include <string.h>

#include "shop.h"

static const struct {
    const char *item;
    int cents;
} prices[] = {
    {"tea", 300},
    {"cake", 450},
};

/* The value of a parameter of the target, cut at 31 characters; empty if there is none. */
static void parameter(const char *target, const char *name, char value[32])
{
    size_t length = strlen(name);
    const char *at = strchr(target, '?');

    value[0] = '\0';
    while (at != NULL) {
        at++;
        if (strncmp(at, name, length) == 0 && at[length] == '=') {
            at += length + 1;
            snprintf(value, 32, "%.*s", (int)strcspn(at, "&"), at);
            return;
        }
        at = strchr(at, '&');
    }
}

void answer_price(const struct request *request, struct answer *answer)
{
    char item[32];

    parameter(request->target, "item", item);
    for (size_t i = 0; i < sizeof prices / sizeof prices[0]; i++) {
        if (strcmp(prices[i].item, item) == 0) {
            answer->status = 200;
            snprintf(answer->body, sizeof answer->body, "%s %d\n", item, prices[i].cents);
            return;
        }
    }
    answer->status = 404;
    snprintf(answer->body, sizeof answer->body, "we have no such item\n");
}
