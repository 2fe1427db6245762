#!/usr/bin/env bash
# Train on the nodes of a Slurm job with MXNet's parameter server; the flags are train_yolo3_mobilenet.py's:
#     sbatch --nodes 2 scripts/cluster/slurm.sh --dataset coco --batch-size 128 -j 32 --resume auto ...
# Run it in the project's folder, which all nodes must share. Each node runs a server, and a worker with all its GPUs
# and -j processes that prepare its batches. Two minutes before the time limit the workers write a checkpoint and end.
# If the nodes have several networks, set DMLC_INTERFACE to the one to use, and DMLC_PS_ROOT_URI to the first node's
# address in it.
#SBATCH --job-name=yolo3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=8
#SBATCH --signal=B:USR1@120
set -euo pipefail

# This script runs on the first node.
export DMLC_PS_ROOT_URI=${DMLC_PS_ROOT_URI:-$(hostname -I | awk '{ print $1 }')}
export DMLC_PS_ROOT_PORT=$((10000 + SLURM_JOB_ID % 20000))
export DMLC_NUM_WORKER=$SLURM_JOB_NUM_NODES DMLC_NUM_SERVER=$SLURM_JOB_NUM_NODES

# role ROLE NODE COMMAND...
role() {
    DMLC_ROLE=$1 exec srun --overlap --nodes=1 --ntasks=1 --nodelist="$2" \
        --cpus-per-task="$SLURM_CPUS_PER_TASK" "${@:3}"
}
train=(.venv/bin/python train_yolo3_mobilenet.py --kv-store dist_sync_device "$@")
# Only the workers heed SIGTERM: they need the servers for their last step. The servers end with SIGUSR1.
deaf=(bash -c 'trap "" TERM; exec "$@"' bash)

trap 'scancel --signal=USR1 "$SLURM_JOB_ID" 2>/dev/null' EXIT
role scheduler "$SLURMD_NODENAME" "${deaf[@]}" "${train[@]}" &
workers=()
for node in $(scontrol show hostnames); do
    role server "$node" "${deaf[@]}" "${train[@]}" &
    role worker "$node" "${train[@]}" &
    workers+=($!)
done

# USR1 comes before the time limit. scancel itself sends SIGTERM, and a second one would kill the training.
trap 'scancel --signal=TERM "$SLURM_JOB_ID"; wait "${workers[@]}" || exit' USR1
trap 'wait "${workers[@]}" || exit' TERM

# When all is well, the workers end first and the rest follows. An error of any ends all.
for ((left = 1 + 2 * SLURM_JOB_NUM_NODES; left > 0; left--)); do
    wait -n || exit
done
