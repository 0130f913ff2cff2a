#!/bin/sh
# One Droplet with AI Sandbox:  IMAGE_ID=123456789 SSH_KEY=fingerprint sh deploy.sh [user-data.yaml]
set -eu
: "${IMAGE_ID:?number of the snapshot or 1-Click App image}" "${SSH_KEY:?fingerprint of your key at DigitalOcean}"
exec doctl compute droplet create "${NAME:-ai-sandbox}" --image "$IMAGE_ID" --size "${SIZE:-gpu-4000adax1-20gb}" \
  --region "${REGION:-nyc2}" --ssh-keys "$SSH_KEY" --wait ${1:+--user-data-file "$1"}
