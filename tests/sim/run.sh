#!/bin/sh
# run.sh SIMULATOR REGRESSIONS OPEN FAST CHECK FULL: the seeds that once found something, and then FAST simulated clusters, CHECK
# of them in `make check`, FULL of them in `make check-full`. Seeds listed in OPEN may violate an invariant, no others.
sim=$1
open=$3
seeds=$4
[ "${FLOCKER_TEST_CHECK:-0}" = 0 ] || seeds=$5
[ "${FLOCKER_TEST_FULL:-0}" = 0 ] || seeds=$6
while read -r seed options; do
    case $seed in "" | "#"*) continue ;; esac
    # shellcheck disable=SC2086 # options are words
    "$sim" --seed "$seed" ${options%%#*} >/dev/null || {
        echo "seed $seed violates an invariant again"
        exec "$sim" --seed "$seed" ${options%%#*}
    }
done <"$2"
said=$("$sim" --seeds "$seeds")
status=$?
printf '%s\n' "$said"
[ "$status" = 1 ] || exit "$status"
found=$(printf '%s\n' "$said" | sed -n 's/^seed \([0-9]*\) at .*/\1/p' | sort -un)
[ -n "$found" ] && [ "$(printf '%s\n' "$found" | wc -l)" = "$(printf '%s\n' "$said" | sed -n '$s/.* \([0-9]*\) violations$/\1/p')" ] || exit 1
for seed in $found; do
    grep -q "^$seed " "$open" || exit 1
    echo "seed $seed is a known defect: $(sed -n "s/^$seed # //p" "$open")"
done
