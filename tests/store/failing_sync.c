/* Preloaded into a test process, a disk that misbehaves on demand.
 *
 * - Counts syncs in the file $SYNC_COUNT, one byte each.
 * - While the file $SYNC_FAILS exists, syncs fail with EIO. A failed sync does not reach the disk, and the next one does not
 *   remember: as on Linux.
 * - While the file $DISK_READONLY exists, writes fail with EROFS: as on a file system that the kernel has remounted.
 * - After each sync that succeeds, what was synced is copied into the directory $SYNC_SHADOW: a file's content under its
 *   inode, a directory's names under dir-<inode>. After a power cut that, and no more, is on the disk. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int asked_for(const char *variable)
{
    const char *path = getenv(variable);
    return path && access(path, F_OK) == 0;
}

static void put(int out, const char *bytes, ssize_t length)
{
    while (length > 0) {
        ssize_t done = (ssize_t)syscall(SYS_write, out, bytes, length);
        if (done <= 0) abort();
        bytes += done;
        length -= done;
    }
}

static void copy_names(int fd, int out)
{
    char self[64], line[600];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    DIR *names = opendir(self);
    if (!names) abort();
    for (struct dirent *entry; (entry = readdir(names));)
        if (entry->d_type == DT_REG)
            put(out, line, snprintf(line, sizeof line, "%lu %s\n", (unsigned long)entry->d_ino, entry->d_name));
    closedir(names);
}

static void copy_content(int fd, int out)
{
    char bytes[65536];
    ssize_t got;
    for (off_t at = 0; (got = pread(fd, bytes, sizeof bytes, at)) > 0; at += got) put(out, bytes, got);
    if (got < 0) abort();
}

static void reached_the_disk(int fd)
{
    const char *shadow = getenv("SYNC_SHADOW");
    char path[4096], part[4200];
    struct stat meta;
    if (!shadow || fstat(fd, &meta) != 0) return;
    int names = S_ISDIR(meta.st_mode);
    snprintf(path, sizeof path, "%s/%s%lu", shadow, names ? "dir-" : "", (unsigned long)meta.st_ino);
    snprintf(part, sizeof part, "%s.part-%ld", path, (long)syscall(SYS_gettid));
    int out = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0) abort();
    if (names) copy_names(fd, out);
    else copy_content(fd, out);
    close(out);
    /* Whole or not at all, also where the process is killed here. */
    if (rename(part, path) != 0) abort();
}

static int counted(int fd, long number)
{
    const char *count = getenv("SYNC_COUNT");
    int log = count ? open(count, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (log >= 0) {
        put(log, "s", 1);
        close(log);
    }
    if (asked_for("SYNC_FAILS")) {
        errno = EIO;
        return -1;
    }
    int result = (int)syscall(number, fd);
    if (result == 0) reached_the_disk(fd);
    return result;
}

int fsync(int fd) { return counted(fd, SYS_fsync); }
int fdatasync(int fd) { return counted(fd, SYS_fdatasync); }

static ssize_t written(int fd, const void *bytes, size_t length, off_t at)
{
    if (asked_for("DISK_READONLY")) {
        errno = EROFS;
        return -1;
    }
    return (ssize_t)syscall(SYS_pwrite64, fd, bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return written(fd, bytes, length, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { return written(fd, bytes, length, at); }
