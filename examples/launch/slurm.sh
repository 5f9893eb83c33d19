#!/usr/bin/env bash
# Train on several nodes of a SLURM cluster: sbatch examples/launch/slurm.sh --out /shared/run --data digits
#
# jax takes one process for each GPU: on SLURM, process i of a node sees its i-th GPU only.
#SBATCH --job-name=diffusion
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the time is up, all processes are told to save their state.
#SBATCH --signal=TERM@120
set -euo pipefail

status=0
srun --kill-on-bad-exit=1 diffusion-eqx train --coordinator auto --rendezvous-timeout 600 "$@" || status=$?

# 130 is a run that was stopped by a signal, and has saved its state: it goes on when there is room again.
if ((status == 130)); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
