#!/usr/bin/env bash
# Train over several hosts with MXNet's parameter server, started by plain ssh from any of them:
#     bash scripts/cluster/ssh.sh host1,host2 .venv/bin/python train_yolo3_mobilenet.py --kv-store dist_sync_device ...
# Each host runs the command as a server and as a worker with all its GPUs; the first one also runs it as the scheduler.
# All hosts need the folder that this is started in, and ssh without a password. -j counts the workers of a host.
# DMLC_PS_ROOT_PORT (9091) is the scheduler's port. Ctrl-C ends all after a checkpoint; an error or a lost connection on
# one host ends all hosts.
set -euo pipefail

fail() { echo "ssh.sh: error: $*" >&2; exit 2; }
[ $# -gt 1 ] || fail 'give hosts and a command: bash scripts/cluster/ssh.sh host1,host2 COMMAND...'
IFS=, read -r -a hosts <<< "$1"
shift

addresses=()
for host in "${hosts[@]}"; do
    name=$(ssh -G -T -- "$host" | awk '$1 == "hostname" { print $2 }')
    address=$(getent ahostsv4 "$name" | awk 'NR == 1 { print $1 }') || true
    case $address in
        '') fail "$host has no IPv4 address here: check its name, or give the address" ;;
        127.*) [ ${#hosts[@]} = 1 ] ||
            fail "$host is $address here, which other hosts cannot reach: give its address in the network" ;;
    esac
    addresses+=("$address")
done

# Runs on a host: a command in a folder. If the connection ends first, the command has 30 s to write a checkpoint.
remote='cd -- "$1" || exit
shift
set -m
"$@" < /dev/null & command=$!
exec > /dev/null 2>&1
{ cat; kill -TERM $command; sleep 30; kill -KILL -- -$command; } & guard=$!
wait $command && code=0 || code=$?
kill -KILL -- -$guard
exit $code'

# Each connection lasts as long as its pipe is open here: 8 for the workers, 9 for the rest. The end of this script,
# whatever its cause, closes both.
folder=$(mktemp -d)
mkfifo "$folder/workers" "$folder/rest"
exec 8<> "$folder/workers" 6< "$folder/workers" 9<> "$folder/rest" 7< "$folder/rest"
rm -r "$folder"

# start ROLE INPUT NUMBER COMMAND...: starts it on the host of that number
start() {
    local role=$1 input=$2 host=${hosts[$3]} address=${addresses[$3]} words='' word code quote="'\\''"
    shift 3
    for word in bash -c "$remote" bash "$PWD" env DMLC_ROLE="$role" DMLC_NODE_HOST="$address" \
        DMLC_PS_ROOT_URI="${addresses[0]}" DMLC_PS_ROOT_PORT="${DMLC_PS_ROOT_PORT:-9091}" \
        DMLC_NUM_WORKER=${#hosts[@]} DMLC_NUM_SERVER=${#hosts[@]} "$@"; do
        words+=" '${word//\'/$quote}'"
    done
    {
        ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=5 -- "$host" "$words" && code=0 || code=$?
        [ $code = 0 ] || echo "ssh.sh: the $role on $host ended with $code" >&2
        exit $code
    } <&"$input" 8>&- 9>&- &
}

trap 'exec 8>&- 9>&-; wait' EXIT
start scheduler 7 0 "$@"
workers=()
for number in "${!hosts[@]}"; do
    start server 7 "$number" "$@"
    start worker 6 "$number" "$@"
    workers+=($!)
done

# The workers need the servers for their last step.
stop() {
    trap '' INT TERM
    exec 8>&-
    wait "${workers[@]}" || true
    exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

# When all is well, the workers end first and the rest follows. An error of any ends all.
for ((left = 1 + 2 * ${#hosts[@]}; left > 0; left--)); do
    wait -n || exit
done
