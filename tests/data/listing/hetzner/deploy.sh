#!/bin/sh
# One server with AI Sandbox:  IMAGE_ID=123456789 SSH_KEY=name SIZE=type sh deploy.sh [user-data.yaml]
set -eu
: "${IMAGE_ID:?number of the snapshot}" "${SSH_KEY:?name of your key at Hetzner}" "${SIZE:?type of the server}"
exec hcloud server create --name "${NAME:-ai-sandbox}" --image "$IMAGE_ID" --type "$SIZE" \
  --location "${LOCATION:-nbg1}" --ssh-key "$SSH_KEY" ${1:+--user-data-from-file "$1"}
