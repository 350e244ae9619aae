#!/usr/bin/env bash
# An experiment on a real Slurm of one node, on loopback: same bytes as without Slurm, or this fails.
#
# As root, with Debian's slurm-wlm and munge and with `pip install -e '.[slurm]'`:  tests/drills/slurm.sh [OVERLAY]
# Starts munged, slurmctld and slurmd in a temporary folder and ends them, by their process ids, when it is done.
set -euo pipefail

readonly PROJECT=$(cd "$(dirname "$0")/../.." && pwd)
readonly WORK=$(mktemp -d)
readonly CONFIG=/etc/slurm # a job's own environment loses SLURM_CONF, so the files must be where Slurm looks by itself
readonly OVERLAY=${1:-experiments/quick.yaml} # named as its experiment
readonly EXPERIMENT=(--configfile params.yaml "$OVERLAY")
STARTED=()

stop_cluster() {
    [ -L "$CONFIG/slurm.conf" ] && scancel --user root 2>/dev/null || true
    for ((i = ${#STARTED[@]} - 1; i >= 0; i--)); do
        kill "${STARTED[i]}" 2>/dev/null || true
    done
    for file in slurm.conf gres.conf; do
        [ "$(readlink "$CONFIG/$file")" = "$WORK/$file" ] && rm "$CONFIG/$file"
    done
    if [ -n "${KEEP:-}" ]; then echo "kept: $WORK"; else rm -rf "$WORK"; fi
}

# start NAME COMMAND...: run a daemon in the foreground of a process of ours, so that its id is known.
start() {
    local name=$1
    shift
    "$@" >"$WORK/$name.out" 2>&1 &
    STARTED+=($!)
}

wait_for() {
    for _ in $(seq 60); do
        "$@" >/dev/null 2>&1 && return
        sleep 1
    done
    echo "slurm.sh: gave up waiting for: $*" >&2
    tail -n 20 "$WORK"/*.log "$WORK"/*.out >&2
    exit 1
}

# The node has one pretended GPU, so that asking for one can be seen to work; nothing runs on it.
write_config() {
    local node cpus memory
    node=$(hostname -s)
    cpus=$(nproc)
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    touch "$WORK/gpu0"
    echo "Name=gpu File=$WORK/gpu0" >"$WORK/gres.conf"
    cat >"$WORK/slurm.conf" <<END
ClusterName=drill
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$WORK/munge.socket
StateSaveLocation=$WORK/state
SlurmdSpoolDir=$WORK/spool
SlurmctldPidFile=$WORK/slurmctld.pid
SlurmdPidFile=$WORK/slurmd.pid
SlurmctldLogFile=$WORK/slurmctld.log
SlurmdLogFile=$WORK/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MinJobAge=3600
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory Gres=gpu:1 State=UNKNOWN
PartitionName=drill Nodes=$node Default=YES MaxTime=INFINITE State=UP
END
    mkdir "$WORK/state" "$WORK/spool"
}

start_cluster() {
    dd if=/dev/urandom of="$WORK/munge.key" bs=1024 count=1 status=none
    chmod 400 "$WORK/munge.key"
    start munged munged --foreground --force --key-file "$WORK/munge.key" --socket "$WORK/munge.socket" \
        --pid-file "$WORK/munged.pid" --log-file "$WORK/munged.log" --seed-file "$WORK/munged.seed"
    wait_for munge --no-input --socket "$WORK/munge.socket"
    write_config
    mkdir -p "$CONFIG"
    ln -s "$WORK/slurm.conf" "$WORK/gres.conf" "$CONFIG"
    start slurmctld slurmctld -D
    start slurmd slurmd -D
    wait_for sh -c 'sinfo --noheader --format %T | grep -q idle'
}

# A copy without results, in which MLflow is a file of its own.
copy_project() {
    mkdir "$1"
    (cd "$PROJECT" && cp -r params.yaml profiles workflow src experiments pyproject.toml "$1"
        mkdir "$1/tests" && cp -r tests/drills "$1/tests")
}

run_in() {
    local folder=$1
    shift
    (cd "$folder" && PYTHONPATH="$folder/src${PYTHONPATH:+:$PYTHONPATH}" MLFLOW_TRACKING_URI="sqlite:///$folder/mlflow.db" \
        "$@")
}

if [ -e "$CONFIG/slurm.conf" ]; then
    echo "slurm.sh: $CONFIG/slurm.conf exists: this machine has a Slurm of its own, which is left alone" >&2
    exit 1
fi
trap stop_cluster EXIT
for command in munged slurmctld slurmd; do
    command -v "$command" >/dev/null || { echo "slurm.sh: $command is missing: apt-get install slurm-wlm munge" >&2; exit 1; }
done
start_cluster
copy_project "$WORK/local"
copy_project "$WORK/slurm"

# In the profile: on the command line, --set-resources would replace all of the profile's.
sed -i 's/invert: {/invert: {gres: "gpu:1", /' "$WORK/slurm/profiles/slurm/config.yaml"
run_in "$WORK/slurm" snakemake --profile profiles/slurm "${EXPERIMENT[@]}"
scontrol --oneliner show jobs >"$WORK/jobs.txt"
run_in "$WORK/local" snakemake --cores 1 --quiet all "${EXPERIMENT[@]}"

readonly METRICS=results/$(basename "$OVERLAY" .yaml)/metrics.json # with the fingerprint of all tables
cmp "$WORK/local/$METRICS" "$WORK/slurm/$METRICS"
echo "same results with Slurm ($(wc -l <"$WORK/jobs.txt") Slurm jobs) and without"
