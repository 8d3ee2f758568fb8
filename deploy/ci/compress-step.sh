#!/usr/bin/env bash
# One run of compress as a step of CI: installs it, runs it, shows the report, keeps the exit code.
#
#   deploy/ci/compress-step.sh [ARGUMENT...]
#
# In a fresh clone, without arguments, it prunes the packaged model and its gates hold; with --sparsity 0.95 it ends with exit
# code 1 and names accuracy_drop.
#
# The arguments go to compress as they are. All else is taken from the environment; empty means not given:
#
#   RECIPE           recipe for `compress run`; without one, `compress quickstart --prune` on embedded model and texts
#   OUTPUT           folder of the result; what it holds is reused; default runs/ci
#   EXTRA_ARGUMENTS  more arguments for compress, one a line, taken as they are, such as --sparsity=0.95
#   SKIP_INSTALL     1 takes the compress of the PATH; otherwise this checkout is installed into its .venv
#   PYTHON           interpreter to install for; default python3
#   RUNTIME          cpu or gpu: which ONNX Runtime to install; default cpu
#   TORCH_INDEX      package index to take PyTorch from; default is pip's own
#
# Where GITHUB_STEP_SUMMARY names a file, the report is appended to it, a failed gate's as well.
#
# Exit code: that of compress: 0 done, 1 a gate failed, 2 bad input, 70 a bug, 128 and the signal's number if it was
# stopped, as 143 by SIGTERM. An installation that fails gives 2.
set -euo pipefail

# A function is read as a whole, so that a checkout that changes during a long run does not change the run.
main() {
    output=${OUTPUT:-runs/ci}
    compress="compress"
    if [[ ${SKIP_INSTALL:-} != 1 ]]; then
        root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
        make --directory "$root" .venv/installed \
            "PYTHON=${PYTHON:-python3}" "RUNTIME=${RUNTIME:-cpu}" "TORCH_INDEX=${TORCH_INDEX:-}"
        compress=$root/.venv/bin/compress
    fi

    arguments=(quickstart --prune --output "$output")
    if [[ -n ${RECIPE:-} ]]; then
        arguments=(run "$RECIPE" --output "$output")
    fi
    while IFS= read -r line; do
        if [[ -n $line ]]; then
            arguments+=("$line")
        fi
    done <<<"${EXTRA_ARGUMENTS:-}"

    # A signal to this script alone is passed on, and compress cleans up; a wait that it ended is begun again.
    "$compress" "${arguments[@]}" "$@" &
    pid=$!
    trap 'kill -TERM "$pid" 2>/dev/null || true' TERM INT HUP
    while :; do
        code=0
        wait "$pid" || code=$?
        kill -0 "$pid" 2>/dev/null || break
    done

    if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
        # With another code compress wrote no report, and one that is there is of an earlier run.
        if [[ $code -le 1 && -f $output/report.md ]]; then
            cat "$output/report.md" >>"$GITHUB_STEP_SUMMARY"
        else
            echo "compress ended with exit code $code and without a report; its log has the reason." \
                >>"$GITHUB_STEP_SUMMARY"
        fi
    fi
    exit "$code"
}

main "$@"
