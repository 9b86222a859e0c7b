/* The rogue's own tool: sends standard input to a TCP port or a unix socket and prints what comes
 * back. `knock HOST PORT` or `knock PATH`. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in internet = {.sin_family = AF_INET};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr *address = (struct sockaddr *)&internet;
    struct timeval patience = {.tv_sec = 5};
    socklen_t size = sizeof internet;
    char text[65536];
    ssize_t length;
    int connection;

    if (argc == 3) {
        inet_pton(AF_INET, argv[1], &internet.sin_addr);
        internet.sin_port = htons((unsigned short)atoi(argv[2]));
    } else if (argc == 2) {
        snprintf(local.sun_path, sizeof local.sun_path, "%s", argv[1]);
        address = (struct sockaddr *)&local;
        size = sizeof local;
    } else {
        return 2;
    }
    connection = socket(address->sa_family, SOCK_STREAM, 0);
    if (connection < 0) {
        perror("socket");
        return 1;
    }
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(connection, address, size) != 0) {
        perror(argc == 3 ? "connect" : argv[1]);
        return 1;
    }
    while ((length = read(0, text, sizeof text)) > 0)
        if (write(connection, text, (size_t)length) != length)
            return 1;
    while ((length = read(connection, text, sizeof text)) > 0)
        fwrite(text, 1, (size_t)length, stdout);
    puts("");
    return 0;
}
