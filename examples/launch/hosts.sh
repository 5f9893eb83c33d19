#!/usr/bin/env bash
# Train on several hosts, one process on each, which ssh starts:
#
#   examples/launch/hosts.sh "alpha beta" --out /shared/run --data digits
#
# All hosts need the same environment, this working directory and the folder of the run. The first one is
# where the others find each other; PORT must be open there. The word localhost starts a process here, as
# often as it stands there. To stop all, send SIGTERM to one: the files in /shared/run/processes say where
# each one is. All save their state and end; the same command goes on.
set -euo pipefail

read -ra hosts <<< "$1"
shift
options=(--coordinator "${hosts[0]}:${PORT:-29400}" --processes "${#hosts[@]}" "$@")

start() {
    local command
    command="cd $(printf %q "$PWD") && exec diffusion-eqx train $(printf '%q ' "${@:2}")"
    if [[ $1 == localhost ]]; then bash -c "$command"; else ssh "$1" "$command"; fi
}

started=()
for process in "${!hosts[@]}"; do
    start "${hosts[process]}" "${options[@]}" --process "$process" &
    started+=($!)
done

status=0
for one in "${started[@]}"; do wait "$one" || status=$?; done
exit "$status"
