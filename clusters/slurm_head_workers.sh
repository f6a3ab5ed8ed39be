#!/usr/bin/env bash
#SBATCH --job-name=ptal
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=2
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@180
#
# Ray on Slurm, started node by node: a head on the first, a worker on each other; the search on the
# first. Nodes may be shared with other jobs and other users: all ports are free ones, Ray's folder is
# the job's, and only processes of the job are ended.
#
# Cost:      nothing to pay on most sites; it counts nodes x hours of your allocation. Bought, a node
#            with 2 GPUs is about 1-5 USD an hour, a rough estimate of November 2026.
# Change:    the #SBATCH lines, --partition and --account of your site.
#            PTAL_VENV: the virtual environment, default .venv of the folder of submission, made by
#            `python3.11 -m venv .venv && .venv/bin/pip install -c constraints.txt .` there.
#            HEAD_IP: of the network between the nodes, where Ray would guess wrongly.
# Data:      PTAL_DATA on the shared file system: import there on the login node.
# Secrets:   the token of Ray is RAY_AUTH_TOKEN of the environment, else a new one for this job.
# Start:     sbatch clusters/slurm_head_workers.sh
# Submit:    that starts the search below; another one, or a study to continue, is given as words:
#            sbatch clusters/slurm_head_workers.sh python -m ptal_ray.search apn_thumos --resume
#            From outside, with RAY_AUTH_TOKEN exported before sbatch and the tunnel below:
#            ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
#                python -m ptal_ray.search lacp_thumos --storage /shared/studies
# Watch:     slurm-JOB.out names the head's dashboard; ssh -L 8265:127.0.0.1:PORT NODE, then
#            http://127.0.0.1:8265. MLflow: export MLFLOW_TRACKING_URI before sbatch, or
#            `mlflow ui --backend-store-uri sqlite:///mlflow.db` in the folder of submission.
# Tear down: the job ends with its search and with its exit code. `scancel --batch --signal=TERM JOB`,
#            or the time limit, stops the search cleanly; the command that continues is printed.
set -euo pipefail

export PATH="${PTAL_VENV:-${SLURM_SUBMIT_DIR:-$PWD}/.venv}/bin:$PATH"
if (($# == 0)); then
  set -- python -m ptal_ray.search apn_thumos --set resources.gpus_per_worker=0.5
fi

RAY_AUTH_TOKEN="${RAY_AUTH_TOKEN:-$(python -c 'import secrets; print(secrets.token_hex(32))')}"
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
export RAY_TMPDIR="/tmp/ptal-$SLURM_JOB_ID" # of this job alone; Ray's logs stay there
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
start=(--block --disable-usage-stats --log-style=record
  --num-cpus="$SRUN_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

# This runs on the first node, so ports free here are free for the head.
head_ip="${HEAD_IP:-$(python -c 'import ray; print(ray.util.get_node_ip_address())')}"
ports="$(python - <<'END'
import socket

held = [socket.create_server(("", 0)) for _ in range(3)]
print(*(server.getsockname()[1] for server in held))
END
)"
read -r gcs dashboard client <<<"$ports"
address="$head_ip:$gcs"

steps=()
search=
# shellcheck disable=SC2329 # the trap calls it
finish() {
  for step in $search "${steps[@]}"; do kill -TERM "$step" 2>/dev/null || true; done
  wait || true
}
trap finish EXIT
trap '[[ -z $search ]] && exit 143; kill -TERM "$search" 2>/dev/null || true' TERM INT

step() { # runs `ray start` with the options given on the node of the first argument
  local node="$1"
  shift
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" ray start "${start[@]}" "$@" &
  steps+=("$!")
}

step "${nodes[0]}" --head --node-ip-address="$head_ip" --port="$gcs" \
  --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" --ray-client-server-port="$client"
until (: <"/dev/tcp/$head_ip/$gcs") 2>/dev/null; do
  kill -0 "${steps[0]}" # ends the job where the head has ended
  sleep 1
done
for node in "${nodes[@]:1}"; do step "$node" --address="$address"; done

RAY_ADDRESS="$address" python - "${#nodes[@]}" <<'END'
import sys
import time

import ray

ray.init(log_to_driver=False)
deadline = time.monotonic() + 300
while (up := sum(node["Alive"] for node in ray.nodes())) < int(sys.argv[1]):
    if time.monotonic() > deadline:
        sys.exit(f"only {up} of {sys.argv[1]} nodes joined Ray within 300 s; see the lines above")
    time.sleep(1)
END
echo "Ray: ${#nodes[@]} nodes, dashboard on ${nodes[0]} at 127.0.0.1:$dashboard"

RAY_ADDRESS="$address" "$@" &
search=$!
status=0
wait "$search" || status=$?
while kill -0 "$search" 2>/dev/null; do # a signal ended that wait, not the search
  wait "$search" || status=$?
done
wait "$search" || status=$?
search=
exit "$status"
