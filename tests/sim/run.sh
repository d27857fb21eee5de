#!/bin/sh
# 1,000 simulated clusters; 100,000 when large counts are asked for.
case ${FLOCKER_TEST_FULL:-0} in
    "" | 0) exec "$1" --seeds 1000 ;;
    *) exec "$1" --seeds 100000 ;;
esac
