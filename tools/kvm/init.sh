#!/busybox sh
# First program of the emulated machine: the host's root, read-only, under a tmpfs, becomes the root; the command runs in it;
# its status goes to the second serial port and the machine powers off.
b=/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
for module in /modules/*; do $b insmod "$module" || echo "cannot load $module"; done
$b mount -t virtiofs -o ro host /host
$b mount -t tmpfs writable /writable
$b mkdir /writable/upper /writable/work /writable/root
root=/writable/root
$b mount -t overlay -o lowerdir=/host,upperdir=/writable/upper,workdir=/writable/work overlay $root
for directory in dev proc sys; do $b mount --move /$directory $root/$directory; done
$b mount -t tmpfs run $root/run
$b mkdir -p $root/dev/shm $root/dev/pts
$b mount -t tmpfs shm $root/dev/shm
$b mount -t devpts devpts $root/dev/pts
$b mount -t cgroup2 cgroup $root/sys/fs/cgroup
$b ip link set lo up
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
$b chroot $root /bin/sh -c "$($b cat /command)"
echo "status $?" >$root/dev/ttyS1
$b poweroff -f
