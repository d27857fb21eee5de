#!/bin/sh
# faults.sh SIMULATOR: every deliberate mistake must be noticed within 2,000 seeds; without one the simulator must be quiet.
sim=$1
missed=0
"$sim" --seeds 200 >/dev/null || {
    echo "violations without a fault"
    exit 1
}
faults=$("$sim" --fault list)
[ -n "$faults" ] || {
    echo "the simulator names no faults"
    exit 1
}
for fault in $faults; do
    answer=$("$sim" --seeds 2000 --stop --fault "$fault")
    status=$?
    what=$(printf '%s\n' "$answer" | grep '^seed ' | cut -c1-120)
    if [ $status -eq 1 ] && [ -n "$what" ]; then
        echo "noticed $fault: $what"
    else
        echo "MISSED $fault"
        missed=$((missed + 1))
    fi
done
[ "$missed" -eq 0 ]
