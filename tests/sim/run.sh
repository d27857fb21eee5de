#!/bin/sh
# run.sh SIMULATOR REGRESSIONS FAST CHECK FULL: the seeds that once found something, and then FAST simulated clusters, CHECK
# of them in `make check`, FULL of them in `make check-full`.
sim=$1
seeds=$3
[ "${FLOCKER_TEST_CHECK:-0}" = 0 ] || seeds=$4
[ "${FLOCKER_TEST_FULL:-0}" = 0 ] || seeds=$5
while read -r seed options; do
    case $seed in "" | "#"*) continue ;; esac
    # shellcheck disable=SC2086 # options are words
    "$sim" --seed "$seed" ${options%%#*} >/dev/null || {
        echo "seed $seed violates an invariant again"
        exec "$sim" --seed "$seed" ${options%%#*}
    }
done <"$2"
exec "$sim" --seeds "$seeds"
