/*
 * Preloaded into the program: counts what it writes, syncs and sends, over all its threads together, writes each call
 * into a log before it is made, and at the n-th does one deed. `strace -e inject=…:when=N` counts each thread for
 * itself, so that with several threads most calls are never the N-th of anything.
 *
 *   NTH_FOLDER  counts what goes into files below this folder
 *   NTH_PORT    counts what goes to this port
 *   NTH_LOG     the log: a line "number call target" for each call
 *   NTH         the number, from 1; 0 or absent: only counts
 *   NTH_DEED    kill: dies instead of the call
 *               half: makes half of the call (of a write or a send, half of its bytes), then dies
 *               eio:  counts syncs alone; the n-th and all later ones fail with EIO
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *folder, *deed;
static int port, nth, log_fd = -1, count;

__attribute__((constructor)) static void begin(void)
{
    const char *text;
    folder = getenv("NTH_FOLDER");
    deed = (text = getenv("NTH_DEED")) ? text : "kill";
    port = (text = getenv("NTH_PORT")) ? atoi(text) : 0;
    nth = (text = getenv("NTH")) ? atoi(text) : 0;
    if ((text = getenv("NTH_LOG")))
        log_fd = open(text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is(const char *name) { return strcmp(deed, name) == 0; }

static void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

/* The file's name below the folder, "." for the folder, "sink" for what goes to the port; NULL: not to be counted. */
static const char *target(int fd, char *name, size_t size)
{
    struct stat status;
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    char link[64];
    ssize_t got;

    if (!folder || fstat(fd, &status))
        return NULL;
    if (S_ISSOCK(status.st_mode)) {
        int found = getpeername(fd, (struct sockaddr *)&peer, &length) == 0;
        return found && peer.sin_family == AF_INET && ntohs(peer.sin_port) == port ? "sink" : NULL;
    }
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if ((got = readlink(link, name, size - 1)) < 0)
        return NULL;
    name[got] = 0;
    if (!strcmp(name, folder))
        return ".";
    return strncmp(name, folder, strlen(folder)) ? NULL : name + strlen(folder) + 1;
}

enum { GO_ON, HALF, FAIL };

/* Counts the call and says how to make it. */
static int step(const char *call, const char *target, int sync)
{
    char line[512];
    int number, now;

    if (!target)
        return GO_ON;
    number = !is("eio") || sync ? __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) : 0;
    now = nth && number && (number == nth || (is("eio") && number > nth));
    int length = snprintf(line, sizeof line, "%d %s %s\n", number, call, target);
    if (syscall(SYS_write, log_fd, line, length) != length)
        abort();
    if (!now)
        return GO_ON;
    if (is("kill"))
        die();
    return is("eio") ? FAIL : HALF;
}

static int step_fd(const char *call, int fd, int sync)
{
    char name[4096];
    int saved = errno;
    int way = step(call, target(fd, name, sizeof name), sync);
    errno = saved;
    return way;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define DATA(result, name, parameters, whole, half) \
    result name parameters                          \
    {                                               \
        if (step_fd(#name, fd, 0) == HALF) {        \
            half;                                   \
            die();                                  \
        }                                           \
        return REAL(name) whole;                    \
    }

DATA(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), REAL(write)(fd, data, size / 2))
DATA(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at),
     REAL(pwrite)(fd, data, size / 2, at))
DATA(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at),
     REAL(pwrite64)(fd, data, size / 2, at))
DATA(ssize_t, writev, (int fd, const struct iovec *parts, int many), (fd, parts, many),
     REAL(write)(fd, parts[0].iov_base, parts[0].iov_len / 2))
DATA(ssize_t, send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags),
     REAL(send)(fd, data, size / 2, flags))
DATA(ssize_t, sendto,
     (int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length),
     (fd, data, size, flags, to, length), REAL(sendto)(fd, data, size / 2, flags, to, length))
DATA(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags), )
DATA(int, ftruncate, (int fd, off_t size), (fd, size), REAL(ftruncate)(fd, size))
DATA(int, ftruncate64, (int fd, off64_t size), (fd, size), REAL(ftruncate64)(fd, size))

#define SYNC(name)                                 \
    int name(int fd)                               \
    {                                              \
        int way = step_fd(#name, fd, 1);           \
        if (way == FAIL) {                         \
            errno = EIO;                           \
            return -1;                             \
        }                                          \
        int result = REAL(name)(fd);               \
        if (way == HALF)                           \
            die();                                 \
        return result;                             \
    }

SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path)
{
    const char *name = folder && !strncmp(path, folder, strlen(folder)) ? path + strlen(folder) + 1 : NULL;
    int way = step("unlink", name, 0);
    int result = REAL(unlink)(path);
    if (way == HALF)
        die();
    return result;
}
