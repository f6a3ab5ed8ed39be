#!/usr/bin/env bash
#SBATCH --job-name=ptal
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=2
#SBATCH --exclusive
#SBATCH --time=12:00:00
#
# Ray on Slurm by `ray symmetric-run`: the same command on every node makes the first one the head,
# runs the search there and stops Ray everywhere at its end. Whole nodes only (--exclusive): it ends
# with `ray stop`, which ends every Ray of this user on the node. On shared nodes, and for a clean
# stop at the time limit, take clusters/slurm_head_workers.sh.
#
# Cost:      nothing to pay on most sites; it counts nodes x hours of your allocation. Bought, a node
#            with 2 GPUs is about 1-5 USD an hour, a rough estimate of November 2026.
# Change:    the #SBATCH lines, --partition and --account of your site.
#            PTAL_VENV: the virtual environment, default .venv of the folder of submission, made by
#            `python3.11 -m venv .venv && .venv/bin/pip install -c constraints.txt .` there.
#            HEAD_IP: of the network between the nodes, where Ray would guess wrongly.
# Data:      PTAL_DATA on the shared file system: import there on the login node.
# Secrets:   the token of Ray is RAY_AUTH_TOKEN of the environment, else a new one for this job.
# Start:     sbatch clusters/slurm_symmetric.sh
# Submit:    that starts the search below; another one, or a study to continue, is given as words:
#            sbatch clusters/slurm_symmetric.sh python -m ptal_ray.search apn_thumos --resume
#            From outside, with RAY_AUTH_TOKEN exported before sbatch and the tunnel below:
#            ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
#                python -m ptal_ray.search lacp_thumos --storage /shared/studies
# Watch:     ssh -L 8265:127.0.0.1:8265 NODE with the job's first node, then http://127.0.0.1:8265.
#            MLflow: export MLFLOW_TRACKING_URI before sbatch, or
#            `mlflow ui --backend-store-uri sqlite:///mlflow.db` in the folder of submission.
# Tear down: the job ends with its search and with its exit code. `scancel JOB` and the time limit
#            kill it; what is lost is the time since the last reports, and --resume continues.
set -euo pipefail

export PATH="${PTAL_VENV:-${SLURM_SUBMIT_DIR:-$PWD}/.venv}/bin:$PATH"
if (($# == 0)); then
  set -- python -m ptal_ray.search apn_thumos --set resources.gpus_per_worker=0.5
fi

RAY_AUTH_TOKEN="${RAY_AUTH_TOKEN:-$(python -c 'import secrets; print(secrets.token_hex(32))')}"
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
export RAY_TMPDIR="/tmp/ptal-$SLURM_JOB_ID" # of this job alone; Ray's logs stay there
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
# Workers leave this soon after the head: Slurm waits for them.
export RAY_gcs_rpc_server_reconnect_timeout_s=10

# This runs on the first node, so a port free here is free for the head.
head_ip="${HEAD_IP:-$(python -c 'import ray; print(ray.util.get_node_ip_address())')}"
port="$(python -c 'import socket; print(socket.create_server(("", 0)).getsockname()[1])')"

# `ray symmetric-run` returns 0 also where Ray did not start, so the search writes its own status.
result="$(mktemp -d "${SLURM_SUBMIT_DIR:-$PWD}/.ptal-$SLURM_JOB_ID-XXXXXX")"
trap 'rm -rf "$result"' EXIT
export RAY_ADDRESS="$head_ip:$port"
# shellcheck disable=SC2016 # the inner shell expands these
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
  ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="$SRUN_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
  --dashboard-host=127.0.0.1 --disable-usage-stats -- \
  bash -c 'status=0; "${@:2}" || status=$?; echo "$status" >"$1/status"; exit "$status"' \
  _ "$result" "$@" || true
[[ -e $result/status ]] || {
  echo "the search did not run: Ray did not start, or was killed; see the lines above" >&2
  exit 1
}
exit "$(<"$result/status")"
