"""Boots the systemd of a bare root as process 1 of namespaces of its own, on the running kernel.

In a root of ``tools/bare``: ``boot.py LOCK`` prints the process id of systemd once it is up, and ends after it. LOCK is
held (flock(2)) meanwhile. Every boot has a boot id, a network namespace, a /run and a /dev of its own; files stay.

systemd documents what it expects: https://systemd.io/CONTAINER_INTERFACE. No package but Python: it runs in the root.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

READY = Path("/var/tmp/booted")
CGROUPS = Path("/var/tmp/cgroups")
# Neither modules nor the clock of the running kernel, nor devices, are its own.
MACHINE = "-sys_module,-sys_time,-sys_rawio,-sys_boot,-mknod,-syslog,-audit_control,-audit_read,-mac_admin"
# As systemd-nspawn(1) does it. What is mounted on /tmp becomes /dev.
INIT = f"""
mount -t proc proc /proc
mount -t sysfs -o ro sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 dev /tmp
for name in null zero full random urandom tty; do touch /tmp/$name; mount --bind /dev/$name /tmp/$name; done
mkdir /tmp/pts /tmp/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts /tmp/pts
mount -t tmpfs shm /tmp/shm
ln -s pts/ptmx /tmp/ptmx
ln -s /proc/self/fd /tmp/fd
for number in 0/stdin 1/stdout 2/stderr; do ln -s /proc/self/fd/${{number%/*}} /tmp/${{number#*/}}; done
mount --move /tmp /dev
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs tmp /tmp
cat /proc/sys/kernel/random/uuid >/run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
mount --rbind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,rw /proc/sys/net
mount --make-rshared /
exec env -i container=bare NOTIFY_SOCKET={READY} PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    setpriv --bounding-set {MACHINE} /lib/systemd/systemd --unit=multi-user.target --log-target=console
"""


def own_cgroup() -> Path:
    """One that nobody else is in: systemd manages all below it. Mounted here: not every machine shows version 2."""
    if not os.path.ismount(CGROUPS):
        CGROUPS.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", CGROUPS], check=True)
    folder = CGROUPS / f"cni-v6-bare-{os.urandom(4).hex()}"
    folder.mkdir()
    return folder


def remove(cgroup: Path) -> None:
    """With all below it, once nobody is in it any more."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        os.rmdir(folder)


def up(messages: socket.socket) -> int:
    """Wait until systemd says that it is up (sd_notify(3)); its process id, as the kernel tells it."""
    while True:
        data, control, _, _ = messages.recvmsg(4096, 64)
        if b"READY=1" in data.split(b"\n"):
            [(_, _, credentials)] = control
            return int.from_bytes(credentials[:4], sys.byteorder)


def main() -> None:
    with open(sys.argv[1], "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        READY.unlink(missing_ok=True)
        cgroup = own_cgroup()
        try:
            enter = f"echo $$ >{cgroup}/cgroup.procs; exec unshare --mount --pid --fork --kill-child --net --uts " \
                    '--ipc --cgroup --propagation private sh -euc "$0"'
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messages:
                messages.bind(os.fspath(READY))
                messages.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                systemd = subprocess.Popen(["sh", "-euc", enter, INIT], stdout=sys.stderr)
                print(up(messages), flush=True)
            # Now nobody listens to what else systemd has to tell: it would wait for a reader who does not read.
            systemd.wait()
        finally:
            remove(cgroup)


if __name__ == "__main__":
    main()
