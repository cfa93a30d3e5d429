"""The guest: a small Debian on a disk image, and a kernel that needs no initrd.

Made once, with debootstrap, and kept. Debian's cloud kernel has NVMe disks, ext4 and the serial
port built in, and neither virtio nor 9p: hence the disks. The second of them is what a scenario
brings; what the guest says comes back on the second serial port.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

SUITE = "bookworm"
PACKAGES = "systemd,systemd-sysv,dbus,libpam-systemd,iproute2,procps,kmod,ca-certificates,sudo,rpm"
KERNEL = "linux-image-cloud-amd64"

QEMU = "qemu-system-x86_64"
LABEL = "0x6d637075"
COMMAND_LINE = (
    "console=ttyS0 quiet panic=0 root=PARTUUID=6d637075-01 rootwait rw mitigations=off "
    "systemd.unified_cgroup_hierarchy=1 init=/lib/systemd/systemd"
)
# What a machine of one test has no use for, and would wait for.
MASKED = [
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service", "systemd-udevd.service",
    "systemd-udev-trigger.service", "systemd-journal-flush.service", "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service", "systemd-pstore.service",
]  # fmt: skip
PAYLOAD_UNIT = """\
[Unit]
After=basic.target dbus.socket systemd-logind.service
[Service]
Type=oneshot
StandardOutput=null
ExecStart=/usr/local/sbin/payload
[Install]
WantedBy=multi-user.target
"""
# The disk without a partition is the payload's.
PAYLOAD = """\
#!/bin/bash
exec >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw
export PAYLOAD=/run/payload LC_ALL=C.UTF-8
mkdir -p $PAYLOAD
for disk in /dev/nvme*n[0-9]; do [ -e ${disk}p1 ] || tar -C $PAYLOAD -xf $disk; done
cd $PAYLOAD && . ./lib.sh && . ./scenario.sh && done_checking
sync
systemctl poweroff -ff
"""


def missing():
    """What has to be installed first, in words; nothing if all is there."""
    needs = {QEMU: "qemu-system-x86", "debootstrap": "debootstrap", "mke2fs": "e2fsprogs", "sfdisk": "fdisk"}
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    os.environ["PATH"] = path
    lacking = {package: name for name, package in needs.items() if not shutil.which(name)}
    if lacking:
        return (
            f"{', '.join(lacking.values())} not found; apt-get install -y --no-install-recommends "
            f"{' '.join(lacking)}"
        )
    if os.geteuid() != 0:
        return "debootstrap makes the guest's files as root; run this as root"
    return ""


def made(directory):
    """The disk image and the kernel, made if they are not there."""
    words = repr((SUITE, PACKAGES, KERNEL, MASKED, PAYLOAD_UNIT, PAYLOAD)).encode()
    directory = directory / hashlib.sha256(words).hexdigest()[:12]
    disk, kernel = directory / "root.img", directory / "vmlinuz"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Another run may be making it.
        if not (disk.exists() and kernel.exists()):
            began = time.monotonic()
            print(f"systemd: making the guest in {directory}; this takes a minute or three", flush=True)
            make(directory, disk, kernel)
            print(f"systemd: made in {time.monotonic() - began:.0f} s", flush=True)
    return disk, kernel


def make(directory, disk, kernel):
    tree, log = directory / "tree", directory / "log"
    shutil.rmtree(tree, ignore_errors=True)
    with open(log, "wb") as out:

        def call(*words):
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            if done.returncode:
                out.flush()
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                sys.exit(f"systemd: cannot make the guest: {' '.join(map(str, words))} failed\n{tail}")

        mirror = os.environ.get("DEBIAN_MIRROR")
        call("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, tree, *([mirror] if mirror else []))
        # By the guest's own apt, so that it does not matter which system this is.
        fetch = (
            f"cd /root && apt-get -q update && apt-get -q download $(apt-cache depends {KERNEL} |"
            " sed -n 's/.*Depends: \\(linux-image-[^ ]*\\)/\\1/p' | head -1) && dpkg -x linux-image-*.deb k"
        )
        call("chroot", tree, "sh", "-c", fetch)
        found = next((tree / "root/k/boot").glob("vmlinuz-*"))
        shutil.copy(found, kernel)
        # What the kernel loads by itself on any Debian: its socket tables (tcp_diag), overlays.
        shutil.copytree(tree / "root/k/lib/modules", tree / "lib/modules")
        call("chroot", tree, "depmod", found.name.removeprefix("vmlinuz-"))
        call("chroot", tree, "sh", "-c", "rm -rf /root/* /var/lib/apt/lists/* /var/cache/apt/* /usr/share/locale/*"
             " /usr/share/doc/* /usr/share/man/* /usr/share/info/*")  # fmt: skip
        units = tree / "etc/systemd/system"
        (units / "multi-user.target.wants").mkdir(parents=True, exist_ok=True)
        for name in MASKED:
            (units / name).unlink(missing_ok=True)
            (units / name).symlink_to("/dev/null")
        (units / "payload.service").write_text(PAYLOAD_UNIT)
        (units / "multi-user.target.wants/payload.service").symlink_to("../payload.service")
        program = tree / "usr/local/sbin/payload"
        program.write_text(PAYLOAD)
        program.chmod(0o755)
        (tree / "etc/hostname").write_text("guest\n")
        (tree / "etc/fstab").write_text("")
        (tree / "etc/machine-id").write_text(hashlib.sha256(os.urandom(16)).hexdigest()[:32] + "\n")
        whole = disk.with_suffix(".tmp")
        with open(whole, "wb") as image:
            image.truncate(1502 << 20)
        table = f"label: dos\nlabel-id: {LABEL}\nstart=2048\n"
        subprocess.run(["sfdisk", "-q", whole], input=table.encode(), stdout=out, stderr=out, check=True)
        call("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "offset=1048576", "-d", tree, whole, "1500M")
        shutil.rmtree(tree)
        whole.rename(disk)
