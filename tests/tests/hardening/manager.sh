# manager.sh UNITS COMMAND...: a service manager that sees these units alone, and then the command.
#
# Both are in namespaces and a control group of their own, and end with the command.
set -e
if [ "$1" != inside ]; then
    mount=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)
    group=$mount$(sed -n 's/^0:://p' /proc/self/cgroup)/p11-test-$$
    mkdir "$group"
    trap 'find "$group" -depth -type d -exec rmdir {} +' EXIT
    sh -c '
        echo $$ >"$0/cgroup.procs"
        exec unshare --cgroup --mount --pid --fork --kill-child sh "$@"
    ' "$group" "$0" inside "$@"
    exit
fi

mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# It starts only where systemd runs, or seems to.
mkdir -p /run/systemd/system /run/manager
export XDG_RUNTIME_DIR=/run/manager SYSTEMD_UNIT_PATH="$2"
shift 2
/lib/systemd/systemd --user >&2 &
for _ in $(seq 100); do
    [ ! -S /run/manager/systemd/private ] || break
    sleep 0.1
done
"$@"
