/* Runs a program as on a kernel without namespaces, Landlock and seccomp: what a cage costs is the difference.
 * usage: uncaged PROGRAM [ARGUMENT ...] */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif
#define NAMESPACES 0x7e020000u /* CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET */
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define UNLESS(test, value, skip) BPF_JUMP(BPF_JMP | (test) | BPF_K, (value), 0, (skip))
#define ANSWER(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define NONE(call) UNLESS(BPF_JEQ, (call), 1), ANSWER(SECCOMP_RET_ERRNO | ENOSYS)

int main(int argc, char **argv) {
    struct sock_filter all[] = {
        LOAD(nr),
        NONE(SYS_landlock_create_ruleset), NONE(SYS_seccomp), NONE(SYS_clone3),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0),
        UNLESS(BPF_JEQ, SYS_unshare, 4),
        LOAD(args[0]), UNLESS(BPF_JSET, NAMESPACES, 1), ANSWER(SECCOMP_RET_ERRNO | EPERM), ANSWER(SECCOMP_RET_ALLOW),
        UNLESS(BPF_JEQ, SYS_prctl, 3),
        LOAD(args[0]), UNLESS(BPF_JEQ, PR_SET_SECCOMP, 1), ANSWER(SECCOMP_RET_ERRNO | EINVAL),
        ANSWER(SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof all / sizeof *all, all};
    if (argc < 2) return fprintf(stderr, "usage: uncaged PROGRAM [ARGUMENT ...]\n"), 2;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return perror("cannot set a filter"), 1;
    execv(argv[1], argv + 1);
    return perror(argv[1]), 127;
}
