/* What the parts of the shop share. */
#ifndef SHOP_H
#define SHOP_H

/* A request: the target as it came, and all header lines. */
struct request {
    const char *target;
    const char *headers;
};

/* An answer: an HTTP status and a text. */
struct answer {
    int status;
    char body[256];
};

/* Answers GET /price?item=NAME. */
void answer_price(const struct request *request, struct answer *answer);

#endif
