// Copyright (c) 2026, the ggen.gvisor authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// A hostile job: tries to get out of its sandbox and prints a line for each attempt, "got NAME" or "denied NAME".
// Arguments: a file of the host, a folder of another workspace, the host's address and port, a unix socket's name in the workspace.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *secret, *other, *address, *port, *name;

static int reads(const char *path) {
    char byte;
    int file = open(path, O_RDONLY);
    return file >= 0 && read(file, &byte, 1) == 1;
}

static int joined(const char *head, const char *tail) {
    char path[4096];
    snprintf(path, sizeof path, "%s%s", head, tail);
    return reads(path);
}

static int file_of_the_host(void) { return reads(secret); }
static int file_of_the_host_by_dots(void) { return joined("/workspace/../../../../..", secret); }
static int file_of_the_host_by_init(void) { return joined("/proc/1/root", secret); }
static int file_of_the_host_by_a_link(void) {
    unlink("/workspace/lead-out");
    return symlink(secret, "/workspace/lead-out") == 0 && reads("/workspace/lead-out");
}
static int file_of_the_host_by_chroot(void) {
    int here = open("/", O_RDONLY | O_DIRECTORY);
    if (chroot("/tmp") != 0) return 0;
    fchdir(here);
    for (int step = 0; step < 64; step++) chdir("..");
    chroot(".");
    return reads(secret);
}
static int file_of_the_host_by_handle(void) {
    struct { struct file_handle head; unsigned char bytes[8]; } handle = {{8, 1}, {2}}; // inode 2, a root folder
    int mount = open("/workspace", O_RDONLY | O_DIRECTORY);
    return syscall(SYS_open_by_handle_at, mount, &handle.head, O_RDONLY) >= 0;
}
static int another_workspace(void) { return access(other, F_OK) == 0; }
static int containerd(void) { return access("/run/containerd/containerd.sock", F_OK) == 0; }

static int tcp(const char *where) {
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    inet_pton(AF_INET, where, &peer.sin_addr);
    return connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&peer, sizeof peer) == 0;
}
static int network_of_the_host(void) { return tcp(address); }
static int loopback_of_the_host(void) { return tcp("127.0.0.1"); }
static int raw_socket(void) { return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) >= 0; }
static int packet_socket(void) { return socket(AF_PACKET, SOCK_RAW, 0) >= 0; }
static int unix_socket(const char *path, int abstract) {
    struct sockaddr_un peer = {.sun_family = AF_UNIX};
    strncpy(peer.sun_path + abstract, path, sizeof peer.sun_path - 2);
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(path);
    return connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&peer, size) == 0;
}
static int socket_in_the_workspace(void) {
    char path[108];
    snprintf(path, sizeof path, "/workspace/%s", name);
    return unix_socket(path, 0);
}
static int abstract_socket(void) { return unix_socket(name, 1); }

static int become_root(void) { return setuid(0) == 0 || seteuid(0) == 0 || setresuid(0, 0, 0) == 0; }
static int take_another_group(void) { gid_t group = 0; return setgid(0) == 0 || setgroups(1, &group) == 0; }
static int root_owned_file(void) {
    int file = open("/workspace/mine", O_CREAT | O_RDWR, 0644);
    return file < 0 || fchown(file, 0, 0) == 0;
}
static int root_owned_file_by_a_namespace(void) {
    int file = open("/workspace/mine-too", O_CREAT | O_RDWR, 0644);
    if (file < 0 || unshare(CLONE_NEWUSER) != 0) return 0;
    return fchown(file, 0, 0) == 0 && fchmod(file, 04755) == 0;
}
static int device(void) { return mknod("/workspace/disk", S_IFBLK | 0666, makedev(254, 0)) == 0; }
static int memory_device(void) { return reads("/dev/mem") || reads("/dev/kmem") || reads("/proc/kcore"); }
static int write_to_the_kernel(void) {
    int file = open("/proc/sys/kernel/core_pattern", O_WRONLY);
    return file >= 0 && write(file, "x", 1) == 1;
}
static int write_to_the_image(void) { return open("/bin/planted", O_CREAT | O_WRONLY, 0755) >= 0; }
static int mount_something(void) { return mount("none", "/tmp", "tmpfs", 0, NULL) == 0; }
static int remount_the_image(void) { return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) == 0; }
static int trace_init(void) { return ptrace(PTRACE_ATTACH, 1, NULL, NULL) == 0; }
static int shell_by_its_input(void) {
    const char *inputs[] = {"/proc/1/fd/0", "/proc/1/fd/1", "/proc/1/fd/10", "/dev/stdin"}, order[] = "touch /workspace/ordered\n";
    for (size_t at = 0; at < sizeof inputs / sizeof *inputs; at++) {
        int file = open(inputs[at], O_WRONLY | O_NONBLOCK);
        if (file >= 0 && at < 3 && write(file, order, sizeof order - 1) > 0) return 1;
    }
    return 0;
}
/* The shell is the same user: it may be looked at from outside, and ended, which ends the attacker's own pod. Its memory has the mark. */
static int shell_by_its_memory(void) {
    char byte;
    unsigned long begin = 0;
    FILE *maps = fopen("/proc/1/maps", "r");
    if (maps && fscanf(maps, "%lx", &begin) != 1) begin = 0;
    struct iovec here = {&byte, 1}, there = {(void *)begin, 1};
    return open("/proc/1/mem", O_RDONLY) >= 0 || open("/proc/1/mem", O_RDWR) >= 0 || process_vm_readv(1, &here, 1, &there, 1, 0) >= 0;
}
static int write_to_what_is_lent(void) {
    return open("/.ggen.gvisor/sh", O_WRONLY) >= 0 || open("/.ggen.gvisor/planted", O_CREAT | O_WRONLY, 0755) >= 0;
}
static int load_a_program(void) { char zero[128] = {0}; return syscall(SYS_bpf, 5, zero, sizeof zero) >= 0; }
static int load_a_module(void) { return syscall(SYS_init_module, "", 0, "") == 0; }
static int set_the_clock(void) { struct timespec now; clock_gettime(CLOCK_REALTIME, &now); return clock_settime(CLOCK_REALTIME, &now) == 0; }
static int set_the_name(void) { return sethostname("owned", 5) == 0; }
static int join_the_host(void) { int file = open("/proc/1/ns/mnt", O_RDONLY); return file >= 0 && setns(file, 0) == 0; }
static int restart_the_host(void) { return reboot(RB_DISABLE_CAD) == 0; }

#define ATTEMPT(attempt) {#attempt, attempt}
static const struct { const char *name; int (*attempt)(void); } attempts[] = {
    ATTEMPT(file_of_the_host), ATTEMPT(file_of_the_host_by_dots), ATTEMPT(file_of_the_host_by_init),
    ATTEMPT(file_of_the_host_by_a_link), ATTEMPT(file_of_the_host_by_chroot), ATTEMPT(file_of_the_host_by_handle),
    ATTEMPT(another_workspace), ATTEMPT(containerd), ATTEMPT(network_of_the_host), ATTEMPT(loopback_of_the_host),
    ATTEMPT(raw_socket), ATTEMPT(packet_socket), ATTEMPT(socket_in_the_workspace), ATTEMPT(abstract_socket),
    ATTEMPT(become_root), ATTEMPT(take_another_group), ATTEMPT(root_owned_file), ATTEMPT(root_owned_file_by_a_namespace),
    ATTEMPT(device), ATTEMPT(memory_device), ATTEMPT(write_to_the_kernel), ATTEMPT(write_to_the_image), ATTEMPT(mount_something),
    ATTEMPT(remount_the_image), ATTEMPT(trace_init), ATTEMPT(shell_by_its_input),
    ATTEMPT(shell_by_its_memory), ATTEMPT(write_to_what_is_lent), ATTEMPT(load_a_program), ATTEMPT(load_a_module), ATTEMPT(set_the_clock),
    ATTEMPT(set_the_name), ATTEMPT(join_the_host), ATTEMPT(restart_the_host),
};

int main(int count, char **words) {
    if (count != 6 || geteuid() == 0) return 2; // what root attempts on a host would succeed
    secret = words[1], other = words[2], address = words[3], port = words[4], name = words[5];
    for (size_t at = 0; at < sizeof attempts / sizeof *attempts; at++) {
        fflush(stdout);
        pid_t child = fork(); // what one attempt changes of its process is not the next one's
        if (child == 0) _exit(attempts[at].attempt() ? 1 : 0);
        int status;
        waitpid(child, &status, 0);
        printf("%s %s\n", status == 0 ? "denied" : "got", attempts[at].name);
    }
    return 0;
}
