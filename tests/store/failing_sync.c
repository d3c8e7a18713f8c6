/* Preloaded into a test process: counts its syncs in the file $SYNC_COUNT, one byte each, and fails them with EIO while the
 * file $SYNC_FAILS exists. A failed sync does not reach the disk, and the next one does not remember: as on Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int counted(int fd, long number)
{
    const char *count = getenv("SYNC_COUNT"), *fails = getenv("SYNC_FAILS");
    int log = count ? open(count, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (log >= 0) {
        if (write(log, "s", 1) != 1) abort();
        close(log);
    }
    if (fails && access(fails, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(number, fd);
}

int fsync(int fd) { return counted(fd, SYS_fsync); }
int fdatasync(int fd) { return counted(fd, SYS_fdatasync); }
