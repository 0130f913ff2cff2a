#!/bin/sh
# Runs before each start of a service (templates/systemd/service.j2): one that has been restarted often, and whose last
# run was short, waits here before it tries again. systemd does the same itself from version 254 on (RestartSteps=).
# Whatever goes wrong here, the service starts.

OFTEN=5
SHORT_US=30000000
WAIT_S=28 # with the unit's RestartSec=2: every 30 s

eval "$(systemctl show --property=NRestarts,ActiveEnterTimestampMonotonic,ActiveExitTimestampMonotonic "$1")" || exit 0
run=$((${ActiveExitTimestampMonotonic:-0} - ${ActiveEnterTimestampMonotonic:-0}))
if [ "${NRestarts:-0}" -ge $OFTEN ] && [ $run -ge 0 ] && [ $run -lt $SHORT_US ]; then
    echo "Crashed again and again: the next try is in $WAIT_S s."
    exec sleep $WAIT_S
fi
