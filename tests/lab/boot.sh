#!/bin/sh
# Runs one lab host in the foreground. lab.py sets the variables and holds the lab's lock on standard input.
#
# Mounts, network namespace and veth pair are made inside namespaces of this process: the kernel takes all of them
# back when it ends, however it ends. What outlives it (files, cgroups) is in lab.py's records.
set -eu

if [ "${1-}" != inside ]; then
    for cgroup in $LAB_CGROUPS; do
        echo 0 >"$cgroup/cgroup.procs"
    done
    exec </dev/null # the lab's lock: from here on the cgroups tell that this host runs
    exec unshare --mount --pid --fork --kill-child --mount-proc "$0" inside
fi

# --- PID 1 of a PID namespace of its own: killing it, or systemd-nspawn's parent, ends the whole host ---
cd "$LAB_DIRECTORY"
if [ -n "$LAB_DISK" ]; then
    mount -t tmpfs -o "size=$LAB_DISK,mode=0755" lab disk
fi
if [ ! -d disk/work ]; then
    cp -a seed disk/upper
    # containerd's overlayfs snapshotter cannot work on an overlay: /var is a copy (a few MB), the rest copy-on-write.
    cp -a "$LAB_BASE/var" disk/var
    if [ -z "$LAB_DISK" ]; then
        find "$LAB_ARCHIVES" -name '*.deb' -exec cp --link --target-directory=disk/var/cache/apt/archives {} +
    fi
    mkdir disk/work
fi
mount -t overlay -o "lowerdir=$LAB_BASE,upperdir=disk/upper,workdir=disk/work" lab root

touch netns
unshare --net=netns true
nsenter --net=netns ip -batch - <<END
link add host0 type veth peer name $LAB_VETH netns 1
link set lo up
address add $LAB_ADDRESS peer $LAB_GATEWAY dev host0
link set host0 up
route add default via $LAB_GATEWAY
END
ip -batch - <<END
address add $LAB_GATEWAY peer $LAB_ADDRESS dev $LAB_VETH
link set $LAB_VETH up
END

# systemd-nspawn leaves lock files and folders there.
mkdir -p /run/systemd/nspawn
mount -t tmpfs lab /run/systemd/nspawn

set --
if [ -e /dev/fuse ]; then
    set -- --bind=/dev/fuse
fi
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=1
if [ -n "$LAB_UNIFIED" ]; then
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
fi
status=133 # what systemd-nspawn ends with when the host asked for a reboot
while [ "$status" = 133 ]; do
    status=0
    systemd-nspawn --directory=root --machine="$LAB_MACHINE" --hostname="$LAB_HOST" --boot --register=no --keep-unit \
        --network-namespace-path="$PWD/netns" --capability=all --system-call-filter='@keyring bpf' "$@" \
        --bind="$PWD/disk/var:/var" --resolv-conf=off --link-journal=no --console=read-only \
        systemd.log_target=console systemd.log_level=notice systemd.show_status=1 || status=$?
done
exit "$status"
