/*
 * Counts on the disks of the golden guest, so that a byte which is lost is seen.
 *
 *   counter DISK      the system disk, as vda; build-guest.sh's init starts it
 *
 * Every 20 ms one more number is written to the area of each disk, in the order of the
 * disks' names: vda, vdb and so on. Each write is on the (virtual) disk before the next
 * begins: at any moment an area has the last number of the one before it, or one less.
 * What is late is caught up with; no number is ever left out, and none written twice.
 *
 * An area is at most 32 MiB: partition 4 of the system disk; and of every other disk of
 * at least 16 MiB that is blank, or has a heartbeat or an area already, its beginning:
 *      0   left alone: the heartbeat is here
 *   2048   PENGX-AREA <the area's first number, 12 digits> <checksum>
 *   4096   the records, 512 bytes each, without a hole:
 *          PENGX-COUNT <number, 12 digits> <nanoseconds> <checksum>
 * Both are filled up with blanks and end in a newline. The checksum is FNV-1a, 64 bits in
 * hex, of what stands before it. The nanoseconds are the kernel's monotonic clock right
 * before the write; 0 says that the number was not counted in its time but filled in: the
 * disk was cut off before it, or was not there, while others got it.
 *
 * After a start the highest number of all areas is gone on from. An area that is not a
 * header and whole records with nothing behind them is not touched, so that what was lost
 * stays lost; the console says so, as it does when an area is full or a disk fails.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SECTOR = 512, HEADER = 2048, RECORDS = 4096, CHUNK = 1 << 20, LEAST = 16 << 20, MOST = 32 << 20 };
enum { AREAS = 100, NAME = 32 };

static const int64_t PERIOD = 20 * 1000 * 1000, LOOK = 250 * 1000 * 1000;

struct area {
    char disk[NAME];
    int fd; /* -1: it is left alone until its disk is gone */
    uint64_t first, next; /* the next number to be written; both 0: it is blank */
    uint64_t room;        /* for so many records */
};

static struct area areas[AREAS];
static int count;
static const char *system_disk;
static char sector[SECTOR] __attribute__((aligned(4096)));
static char chunk[CHUNK] __attribute__((aligned(4096)));

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void sleep_until(int64_t when)
{
    struct timespec t = { when / 1000000000, when % 1000000000 };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static void say(const struct area *area, const char *what, uint64_t number)
{
    printf("PENGX-COUNTER %s %s %" PRIu64 "\n", area->disk, what, number);
    fflush(stdout);
}

static int is_blank(const char *bytes)
{
    for (int i = 0; i < SECTOR; i++)
        if (bytes[i] != 0)
            return 0;
    return 1;
}

/* Completes a line in a sector. */
static void seal(char *line, int length)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < length; i++)
        sum = (sum ^ (unsigned char)line[i]) * UINT64_C(0x100000001b3);
    length += sprintf(line + length, " %016" PRIx64, sum);
    memset(line + length, ' ', SECTOR - 1 - length);
    line[SECTOR - 1] = '\n';
}

static void header(char *line, uint64_t first)
{
    seal(line, sprintf(line, "PENGX-AREA %012" PRIu64, first));
}

static void record(char *line, uint64_t number, uint64_t time)
{
    seal(line, sprintf(line, "PENGX-COUNT %012" PRIu64 " %" PRIu64, number, time));
}

static int is_record(const char *bytes, uint64_t number)
{
    char text[SECTOR + 1], line[SECTOR];
    uint64_t found, time;
    memcpy(text, bytes, SECTOR);
    text[SECTOR] = 0;
    if (sscanf(text, "PENGX-COUNT %" SCNu64 " %" SCNu64, &found, &time) != 2 || found != number)
        return 0;
    record(line, number, time);
    return memcmp(line, bytes, SECTOR) == 0;
}

/* Finds out what an area has; 0 unless it is blank or whole. */
static int scan(struct area *area)
{
    char line[SECTOR];
    int ended = 0;
    if (pread(area->fd, sector, SECTOR, HEADER) != SECTOR)
        return 0;
    if (!is_blank(sector)) {
        char text[SECTOR + 1];
        memcpy(text, sector, SECTOR);
        text[SECTOR] = 0;
        if (sscanf(text, "PENGX-AREA %" SCNu64, &area->first) != 1 || area->first == 0)
            return 0;
        header(line, area->first);
        if (memcmp(line, sector, SECTOR) != 0)
            return 0;
        area->next = area->first;
    }
    for (uint64_t at = 0; at < area->room * SECTOR; at += CHUNK) {
        uint64_t left = area->room * SECTOR - at;
        ssize_t length = left < CHUNK ? (ssize_t)left : CHUNK;
        if (pread(area->fd, chunk, length, RECORDS + at) != length)
            return 0;
        for (ssize_t i = 0; i < length; i += SECTOR) {
            if (!ended && area->next != 0 && is_record(chunk + i, area->next))
                area->next++;
            else if (is_blank(chunk + i))
                ended = 1;
            else
                return 0;
        }
    }
    return 1;
}

/* Writes a sector; a disk that does not take it is let go, and looked at again. */
static int put(struct area *area, off_t at)
{
    errno = 0;
    if (pwrite(area->fd, sector, SECTOR, at) == SECTOR)
        return 1;
    printf("PENGX-COUNTER %s fails at byte %lld: %s\n", area->disk, (long long)at, strerror(errno));
    fflush(stdout);
    close(area->fd);
    area->fd = -1;
    area->disk[0] = 0;
    return 0;
}

static int has_room(const struct area *area)
{
    return area->fd >= 0 && area->next - area->first < area->room;
}

static void put_record(struct area *area, uint64_t time)
{
    record(sector, area->next, time);
    if (put(area, RECORDS + (area->next - area->first) * SECTOR)) {
        area->next++;
        if (!has_room(area))
            say(area, "is full, its last number is", area->next - 1);
    }
}

/* Whether it may be counted on it: ours, or a disk with nothing on it but a heartbeat. */
static int is_ours(const struct area *area)
{
    if (strcmp(area->disk, system_disk) == 0)
        return 1;
    return pread(area->fd, sector, SECTOR, 0) == SECTOR &&
           (is_blank(sector) || strncmp(sector, "PENGX-HB ", 9) == 0);
}

/* Begins to count on a disk, if it can be. */
static void adopt(const char *disk)
{
    struct area *area = &areas[count];
    char path[NAME + 8];
    if (count == AREAS || strlen(disk) >= NAME)
        return;
    memset(area, 0, sizeof *area);
    strcpy(area->disk, disk);
    sprintf(path, "/dev/%s%s", disk, strcmp(disk, system_disk) == 0 ? "4" : "");
    area->fd = open(path, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (area->fd < 0)
        return;
    off_t size = lseek(area->fd, 0, SEEK_END);
    if (size < LEAST || !is_ours(area)) {
        close(area->fd);
        return;
    }
    area->room = ((size < MOST ? size : MOST) - RECORDS) / SECTOR;
    if (!scan(area)) {
        say(area, "is left alone: neither blank nor counted is what is behind number", area->next ? area->next - 1 : 0);
        close(area->fd);
        area->fd = -1;
    }
    count++;
}

static int by_name(const void *a, const void *b)
{
    const char *one = ((const struct area *)a)->disk, *other = ((const struct area *)b)->disk;
    size_t length = strlen(one), others = strlen(other);
    return length == others ? strcmp(one, other) : length < others ? -1 : 1;
}

/* Lets go what is gone or has failed, takes what has come. */
static void look(void)
{
    char path[NAME + 16];
    struct dirent *entry;
    int kept = 0;
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "/sys/block/%.*s", NAME, areas[i].disk);
        if (areas[i].disk[0] != 0 && access(path, F_OK) == 0)
            areas[kept++] = areas[i];
        else if (areas[i].fd >= 0)
            close(areas[i].fd);
    }
    count = kept;
    DIR *disks = opendir("/sys/block");
    while (disks != NULL && (entry = readdir(disks)) != NULL) {
        const char *disk = entry->d_name;
        int known = 0;
        if (strncmp(disk, "vd", 2) != 0 && strncmp(disk, "sd", 2) != 0 && strncmp(disk, "xvd", 3) != 0)
            continue;
        for (int i = 0; i < count; i++)
            known |= strcmp(areas[i].disk, disk) == 0;
        if (!known)
            adopt(disk);
    }
    if (disks != NULL)
        closedir(disks);
    qsort(areas, count, sizeof *areas, by_name);
}

/* Brings all areas to where this number is the next. */
static void level(uint64_t number)
{
    for (int i = 0; i < count; i++) {
        struct area *area = &areas[i];
        if (area->fd >= 0 && area->first == 0) {
            header(sector, number);
            if (put(area, HEADER))
                area->first = area->next = number;
        }
        while (has_room(area) && area->next < number)
            put_record(area, 0);
    }
}

int main(int arguments, char **argument)
{
    const struct sched_param urgent = { .sched_priority = 1 };
    uint64_t number = 1;
    int64_t due = now(), next_look = due;
    if (arguments != 2)
        return 2;
    system_disk = argument[1];
    /* What else the guest does shall not look like a disk that is slow. */
    sched_setscheduler(0, SCHED_FIFO, &urgent);
    for (;;) {
        if (now() >= next_look) {
            look();
            for (int i = 0; i < count; i++)
                if (areas[i].fd >= 0 && areas[i].next > number)
                    number = areas[i].next;
            level(number);
            next_look = now() + LOOK;
        }
        int counted = 0;
        for (int i = 0; i < count; i++) {
            if (!has_room(&areas[i]))
                continue;
            counted = 1;
            put_record(&areas[i], now());
        }
        number += counted;
        due += PERIOD;
        sleep_until(due);
    }
}
