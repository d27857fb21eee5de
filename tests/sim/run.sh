#!/bin/sh
# run.sh SIMULATOR SEEDS FULL: so many simulated clusters; FULL of them when large counts are asked for.
case ${FLOCKER_TEST_FULL:-0} in
    "" | 0) exec "$1" --seeds "$2" ;;
    *) exec "$1" --seeds "$3" ;;
esac
