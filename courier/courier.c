/* The courier: carries a runtime's call to the cni-v6 engine and the engine's answer back, as cni_v6/shim.py does.
 *
 * It decides nothing, and reads nothing of what it carries. What no engine takes it hands to the Python executable of
 * its own name, in a folder that is fixed when it is built; where that is not there (a node without Python) it says so
 * in the specification's JSON. cni_v6/wire.py describes the messages, docs/design/engine.md has the reasons.
 *
 * tools/courier builds it, with the version of cni-v6 and the folder of the Python executables.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef ANSWER_SECONDS
#define ANSWER_SECONDS 100 /* for the answer, once the request is sent */
#define ASK_SECONDS 5      /* for a connection, for each part of a request, and of an answer that has begun */
#endif
#define RUN_DIR "/run/cni-v6"
#define MAGIC "CNI6"
#define HEADER 8u
#define LIMIT (32u << 20) /* bytes of one message after its header */
#define STDIN_BYTES (1u << 20) /* of stdin that are read, and one more: that is refused then */
#define STDIN_BYTES_AFTER_ADD (16u << 20)
#define ACK "\x06"
#define TEXT(value) TEXT_OF(value)
#define TEXT_OF(value) #value

enum outcome { ANSWERED, ABSENT, SENT_BACK, LOST, SILENT };
struct field {
    const char *at;
    size_t length;
};

/* What it is, for cni_v6/ctl/executables.py to find in the file. */
__attribute__((used)) static const char made[] = "cni-v6 courier " COURIER_VERSION " for " COURIER_PYTHON;

extern char **environ;
static char *nothing[2], **arguments = nothing; /* what it was called with, for Python; its name is the program there */
static char request[HEADER + LIMIT]; /* enough for stdin, and three times what execve(2) lets an environment have */
static char reply[HEADER + LIMIT];
static size_t used = HEADER;                   /* bytes of the request */
static struct field input;                     /* stdin, in the request; nowhere while it has not been read */
static char program[PATH_MAX], path[PATH_MAX]; /* the Python executable; the engine's socket */
static volatile sig_atomic_t late;             /* it has waited long enough for another call that starts an engine */

static int print(int descriptor, struct field text)
{
    while (text.length) {
        ssize_t written = write(descriptor, text.at, text.length);
        if (written < 0 && errno == EAGAIN)
            poll(&(struct pollfd){.fd = descriptor, .events = POLLOUT}, 1, -1);
        else if (written < 0 && errno != EINTR)
            return 0;
        text.at += written > 0 ? written : 0;
        text.length -= written > 0 ? (size_t)written : 0;
    }
    return 1;
}

/* Answers with code 11, try again later. */
static int fail(const char *message, const char *details)
{
    static char text[5 * PATH_MAX];
    signal(SIGPIPE, SIG_IGN);
    snprintf(text, sizeof text, "cni-v6: error 11: %s: %s\n", message, details);
    print(STDERR_FILENO, (struct field){text, strlen(text)});
    snprintf(text, sizeof text, "{\"cniVersion\": \"1.1.0\", \"code\": 11, \"msg\": \"%s\", \"details\": \"%s\"}\n",
             message, details);
    print(STDOUT_FILENO, (struct field){text, strlen(text)});
    return EXIT_FAILURE;
}

/* Becomes the Python executable, which gets once more what was read of stdin. The words are for where that cannot be.
 *
 * told: of a call that an engine took and did not answer, its argument: it only says so. NULL: it handles the call.
 */
static int become_python(const char *told, const char *message, const char *remedy)
{
    static char details[4 * PATH_MAX];
    char *argv[] = {program, (char *)(uintptr_t)told, path, TEXT(ANSWER_SECONDS), NULL};
    int again = input.at ? memfd_create("stdin", MFD_CLOEXEC) : STDIN_FILENO;
    if (!input.at || (print(again, input) && !lseek(again, 0, SEEK_SET) && dup2(again, STDIN_FILENO) == STDIN_FILENO))
        execv(program, told ? argv : arguments);
    const char *reason = strerror(errno);
    snprintf(details, sizeof details, told ? "%s" : "%s; the engine's socket is %s; without an engine it takes %s: %s",
             remedy, path, program, reason);
    for (char *at = details; *at; at++) /* paths come from the environment: nothing that JSON would have escaped */
        *at = *at < ' ' || *at > '~' || *at == '"' || *at == '\\' ? '?' : *at;
    return fail(message, details);
}

/* Messages. */

static void add(const char *data, size_t length)
{
    memcpy(request + used, data, length);
    used += length;
}

/* Writes before a part of the request, which ends here, how long it is. */
static void set_length(size_t begin)
{
    uint32_t length = htonl((uint32_t)(used - begin));
    memcpy(request + begin - sizeof length, &length, sizeof length);
}

static size_t get_length(const char *begin)
{
    uint32_t length;
    memcpy(&length, begin - sizeof length, sizeof length);
    return ntohl(length);
}

static void pack(const char *text)
{
    size_t begin = used += sizeof(uint32_t);
    add(text, strlen(text));
    set_length(begin);
}

/* As Python reads it: nothing without a "=", and of what is there twice the first. */
static void pack_environment(void)
{
    size_t begin = used += sizeof(uint32_t);
    for (char **each = environ, **first; *each; each++) {
        const char *end = strchr(*each, '=');
        for (first = environ; end && strncmp(*first, *each, (size_t)(end - *each) + 1); first++)
            ;
        if (!end || first < each)
            continue;
        add("", used > begin);
        add(*each, strlen(*each));
    }
    set_length(begin);
}

/* How much of stdin is read. A DEL, CHECK or GC brings along what others made of an ADD's. */
static size_t stdin_bytes(const char *command)
{
    int after = command && (!strcmp(command, "DEL") || !strcmp(command, "CHECK") || !strcmp(command, "GC"));
    return after ? STDIN_BYTES_AFTER_ADD + 1 : STDIN_BYTES + 1;
}

/* Reads stdin into its place in the request. Returns whether it can be read. */
static int pack_stdin(size_t most)
{
    size_t begin = used += sizeof(uint32_t);
    ssize_t part;
    while (used < begin + most && (part = read(STDIN_FILENO, request + used, begin + most - used)) != 0) {
        if (part < 0 && errno != EINTR)
            return 0;
        used += part > 0 ? (size_t)part : 0;
    }
    input = (struct field){request + begin, used - begin};
    set_length(begin);
    return 1;
}

/* Whether the reply has exactly so many fields. */
static int unpack(size_t length, struct field *fields, size_t count)
{
    const char *at = reply + HEADER, *end = at + length;
    size_t found = 0;
    for (; (size_t)(end - at) >= sizeof(uint32_t) && found < count; found++) {
        at += sizeof(uint32_t);
        fields[found] = (struct field){at, get_length(at)};
        if (fields[found].length > (size_t)(end - at))
            return 0;
        at += fields[found].length;
    }
    return found == count && at == end;
}

static int is(struct field field, const char *word)
{
    return field.length == strlen(word) && !memcmp(field.at, word, field.length);
}

/* An exit status in digits; -1 for anything else. */
static int status(struct field field)
{
    char text[4] = "";
    if (!field.length || field.length >= sizeof text)
        return -1;
    memcpy(text, field.at, field.length);
    return strspn(text, "0123456789") == field.length && atoi(text) <= UINT8_MAX ? atoi(text) : -1;
}

/* The engine. */

/* The kernel keeps the time of what waits for the engine (socket(7)); connect(2) waits while its queue is full. */
static void set_patience(int connection, int option, time_t seconds)
{
    struct timeval patience = {.tv_sec = seconds};
    setsockopt(connection, SOL_SOCKET, option, &patience, sizeof patience);
}

/* A connection to the engine behind a socket, when it is one of the same user as this process. */
static int reach(const char *folder, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ucred peer;
    socklen_t size = sizeof peer;
    int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), failed = -1;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    set_patience(connection, SO_SNDTIMEO, ASK_SECONDS);
    if (strlen(path) < sizeof address.sun_path) {
        memcpy(address.sun_path, path, strlen(path));
        do
            failed = connect(connection, (struct sockaddr *)&address, sizeof address);
        while (failed && errno == EINTR);
    }
    if (!failed && !getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) && peer.uid == geteuid())
        return connection;
    close(connection);
    return -1;
}

static int find(const char *folder, const char *own)
{
    int connection = reach(folder, own);
    return connection < 0 ? reach(folder, "engine.sock") : connection;
}

static void give_up(int number)
{
    late = number;
}

/* Of calls that find no engine the first becomes Python, and starts one. It has a lock, which it gives to Python, until
 * the engine's socket is there (cni_v6/engine/start.py). The others wait for that: a Python of each would take most of
 * the time of a node's first calls. Returns the lock, or -1: it has waited, or cannot. */
static int await_start(const char *folder, const char *own)
{
    static char file[PATH_MAX];
    struct sigaction handled = {.sa_handler = give_up}, before;
    struct itimerval limit = {.it_value = {ASK_SECONDS, 0}, .it_interval = {1, 0}}, none = {.it_value = {0, 0}};
    sigset_t alarms, mask;
    mkdir(folder, S_IRWXU);
    snprintf(file, sizeof file, "%s/%s.start", folder, own);
    int lock = open(file, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, S_IRUSR | S_IWUSR);
    if (lock < 0 || !flock(lock, LOCK_EX | LOCK_NB))
        return lock;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    sigaction(SIGALRM, &handled, &before);
    sigprocmask(SIG_UNBLOCK, &alarms, &mask);
    setitimer(ITIMER_REAL, &limit, NULL); /* again and again: the first alarm may come before the wait */
    while (flock(lock, LOCK_SH) && errno == EINTR && !late)
        ;
    setitimer(ITIMER_REAL, &none, NULL);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    sigaction(SIGALRM, &before, NULL);
    close(lock);
    return -1;
}

/* Sends the request, and with its first bytes the container's namespace. Returns whether all of it was sent. */
static int deliver(int connection, const char *netns)
{
    static union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } rights = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec rest = {.iov_base = request, .iov_len = used};
    struct msghdr message = {.msg_iov = &rest, .msg_iovlen = 1};
    int place = netns && *netns ? open(netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (place >= 0) { /* not there: a DEL after its end; otherwise the engine finds the same, and says so */
        memcpy(CMSG_DATA(&rights.header), &place, sizeof place);
        message.msg_control = &rights;
        message.msg_controllen = sizeof rights;
    }
    while (rest.iov_len) {
        ssize_t sent = sendmsg(connection, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return 0;
        rest.iov_len -= (size_t)sent;
        rest.iov_base = request + used - rest.iov_len;
        message.msg_control = NULL;
        message.msg_controllen = 0;
    }
    return 1;
}

/* Reads the reply; its length only where it has come (ANSWERED). */
static enum outcome receive(int connection, size_t *length)
{
    size_t have = 0, want = HEADER;
    set_patience(connection, SO_RCVTIMEO, ANSWER_SECONDS);
    while (have < want) {
        ssize_t part = recv(connection, reply + have, sizeof reply - have, 0); /* nearly always all of it */
        if (part < 0 && errno == EINTR)
            continue;
        if (part <= 0)
            return part && errno == EAGAIN ? SILENT : LOST;
        have += (size_t)part;
        want = have < HEADER ? HEADER : HEADER + get_length(reply + HEADER);
        if (want > sizeof reply || (have >= HEADER && memcmp(reply, MAGIC, strlen(MAGIC))))
            return LOST;
        if (have < want)
            set_patience(connection, SO_RCVTIMEO, ASK_SECONDS);
    }
    *length = have - HEADER;
    return have == want ? ANSWERED : LOST;
}

static enum outcome ask(int connection, struct field answer[4])
{
    size_t length;
    if (connection < 0 || !deliver(connection, getenv("CNI_NETNS")))
        return ABSENT; /* it cannot have begun: it never had the whole request */
    enum outcome outcome = receive(connection, &length);
    if (outcome != ANSWERED)
        return outcome;
    if (!unpack(length, answer, 4) || status(answer[1]) < 0)
        return LOST;
    if (is(answer[0], "yourself"))
        return SENT_BACK;
    /* Before it is printed: an engine that gave up waiting has taken an ADD back. */
    return is(answer[0], "done") && send(connection, ACK, 1, MSG_NOSIGNAL) == 1 ? ANSWERED : LOST;
}

int main(int argc, char **argv)
{
    const char *folder = getenv("CNI_V6_RUN_DIR"), *engine = getenv("CNI_V6_ENGINE"), *command = getenv("CNI_COMMAND");
    const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;
    struct field answer[4];
    struct stat network;
    char inode[24], own[48], descriptor[12];
    char *starting[] = {program, "--starting", descriptor, NULL};
    int stream, lock;

    do /* a stream that is closed must not become the connection */
        stream = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (stream >= 0 && stream <= STDERR_FILENO);
    name = name ? name + 1 : argc > 0 ? argv[0] : "";
    arguments = argc > 0 ? argv : arguments;
    arguments[0] = program;
    folder = folder ? folder : RUN_DIR;
    snprintf(program, sizeof program, "%s/%s", COURIER_PYTHON, name);
    snprintf(path, sizeof path, "%s/engine.sock", folder);
    if (argc > 1 || (!command && isatty(STDIN_FILENO)))
        return become_python(NULL, "this is cni-v6 " COURIER_VERSION ", a CNI plugin that container runtimes execute",
                             "set CNI_COMMAND, and give no arguments");
    if (engine && !strcmp(engine, "off"))
        return become_python(NULL, "CNI_V6_ENGINE=off forbids the engine", "take it out of the environment");
    if (stat("/proc/self/ns/net", &network))
        return become_python(NULL, "there is no /proc/self/ns/net", "mount /proc");

    int python = !access(program, X_OK);
    snprintf(inode, sizeof inode, "%ju", (uintmax_t)network.st_ino);
    snprintf(own, sizeof own, "engine-%s.sock", inode);
    memcpy(request, MAGIC, strlen(MAGIC));
    pack(python ? COURIER_VERSION : ""); /* with nothing to fall back to: an engine of any version */
    pack(inode);
    pack(name);
    pack_environment();
    if (!pack_stdin(stdin_bytes(command)))
        return become_python(NULL, "stdin cannot be read", "the network configuration must be there");
    set_length(HEADER);
    if (python && memmem(input.at, input.length, "\"engine\"", strlen("\"engine\"")))
        return become_python(NULL, "the configuration names the engine", "take it out"); /* Python reads what it says */

    int connection = find(folder, own);
    if (connection < 0 && python && command && strcmp(command, "VERSION") && !geteuid()) { /* only root starts one */
        lock = await_start(folder, own);
        connection = find(folder, own);
        if (connection < 0 && lock >= 0) {
            snprintf(descriptor, sizeof descriptor, "%d", lock);
            arguments = starting;
        } else if (lock >= 0)
            close(lock);
    }
    switch (ask(connection, answer)) {
    case ABSENT:
        return become_python(NULL, "no cni-v6 engine answers on this node",
                             "start it (the DaemonSet cni-v6-engine, or cni-v6.socket, or cni-v6ctl engine)");
    case SENT_BACK:
        return become_python(NULL, "the cni-v6 engine on this node does not take this call",
                             "it is too busy, or another network namespace's, or the configuration forbids it");
    case LOST:
        return become_python("--lost", "the cni-v6 engine ended before it answered", "run the command again");
    case SILENT:
        close(connection); /* before it is told: from here on nobody takes the answer, and an ADD is taken back */
        return become_python("--silent", "the cni-v6 engine has not answered for " TEXT(ANSWER_SECONDS) " seconds",
                             "look what the process waits for that listens, or end it; then run the command again");
    case ANSWERED:
        break;
    }
    signal(SIGPIPE, SIG_IGN);
    print(STDERR_FILENO, answer[3]);
    return print(STDOUT_FILENO, answer[2]) ? status(answer[1]) : EXIT_FAILURE;
}
