#!/bin/sh
# Every deliberate mistake in the core must be noticed by the simulator within 2,000 seeds; without one it must be quiet.
sim=$1
missed=0
"$sim" --seeds 200 >/dev/null || { echo "violations without a fault"; exit 1; }
for fault in $("$sim" --fault list 2>&1); do
    if "$sim" --seeds 2000 --fault "$fault" >/dev/null; then
        echo "MISSED $fault"
        missed=$((missed + 1))
    else
        echo "noticed $fault"
    fi
done
[ "$missed" -eq 0 ]
