#!/bin/sh
# full_disk.sh CLONE FREE COMMAND...: run COMMAND in a copy of CLONE on a disk with FREE KiB left, then again with enough.
# In CLONE's folder it leaves `full` and `freed`, the copy after each of them, and full.log, full.code, freed.log, ….
# Run it under `unshare --mount`: the disk is gone when it ends, in whatever way.
set -eu
clone=$1 free=$2
shift 2
parent=$(dirname "$clone") disk=$(dirname "$clone")/disk

run() {
    (cd "$disk/clone" && "$@") >"$parent/$state.log" 2>&1 && code=0 || code=$?
    echo $code >"$parent/$state.code"
    cp -a "$disk/clone" "$parent/$state"
}

mkdir "$disk"
mount -t tmpfs -o size=256m none "$disk"
cp -a "$clone" "$disk/clone"
left=$(df --output=avail -k "$disk" | tail -1)
head -c $(((left - free) * 1024)) /dev/zero >"$disk/filler"
state=full && run "$@"
rm "$disk/filler"
state=freed && run "$@"
