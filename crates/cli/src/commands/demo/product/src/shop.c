/* A small HTTP service.
 *
 *   ./shop            serves on 127.0.0.1:$PORT, one request per connection
 *   ./shop --request  answers one request from standard input, for the tests
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "shop.h"

enum { REQUEST_MAX_BYTES = 8192, PATIENCE_S = 2 };

/* Reads up to the empty line that ends the headers. Returns 0 if none came. */
static int read_request(int from, char *text)
{
    size_t length = 0;

    while (length < REQUEST_MAX_BYTES - 1) {
        ssize_t got = read(from, text + length, REQUEST_MAX_BYTES - 1 - length);
        if (got <= 0)
            return 0;
        length += (size_t)got;
        text[length] = '\0';
        if (strstr(text, "\r\n\r\n") != NULL)
            return 1;
    }
    return 0;
}

static void answer_request(char *text, struct answer *answer)
{
    struct request request;
    char *target, *end, *headers;

    answer->status = 400;
    snprintf(answer->body, sizeof answer->body, "a GET request, please\n");
    headers = strstr(text, "\r\n");
    if (headers == NULL || strncmp(text, "GET ", 4) != 0)
        return;
    *headers = '\0';
    target = text + 4;
    end = strchr(target, ' ');
    if (end == NULL)
        return;
    *end = '\0';
    request.target = target;
    request.headers = headers + 2;
    if (strcmp(target, "/") == 0) {
        answer->status = 200;
        snprintf(answer->body, sizeof answer->body, "the shop is open\n");
    } else if (strncmp(target, "/price", 6) == 0 && (target[6] == '?' || target[6] == '\0')) {
        answer_price(&request, answer);
    } else {
        answer->status = 404;
        snprintf(answer->body, sizeof answer->body, "there is nothing here\n");
    }
}

static const char *reason(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    default:
        return "Internal Server Error";
    }
}

static void serve_one(int from, int to)
{
    char text[REQUEST_MAX_BYTES];
    char out[1024];
    struct answer answer;
    size_t length, done = 0;

    if (!read_request(from, text))
        return;
    answer_request(text, &answer);
    snprintf(out, sizeof out,
             "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n"
             "Connection: close\r\n\r\n%s",
             answer.status, reason(answer.status), strlen(answer.body), answer.body);
    length = strlen(out);
    while (done < length) {
        ssize_t put = write(to, out + done, length - done);
        if (put <= 0)
            return;
        done += (size_t)put;
    }
}

int main(int argc, char **argv)
{
    const char *port = getenv("PORT");
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    int listener, yes = 1;

    if (argc > 1 && strcmp(argv[1], "--request") == 0) {
        serve_one(0, 1);
        return 0;
    }
    signal(SIGPIPE, SIG_IGN);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((unsigned short)atoi(port != NULL ? port : "8080"));
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 128) != 0) {
        perror("shop");
        return 1;
    }
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0)
            continue;
        setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        serve_one(connection, connection);
        close(connection);
    }
}
