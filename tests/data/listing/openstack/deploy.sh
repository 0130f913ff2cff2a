#!/bin/sh
# One server with AI Sandbox:  IMAGE=file.qcow2 FLAVOR=name SSH_KEY=name NETWORK=name sh deploy.sh [user-data.yaml]
set -eu
: "${IMAGE:?the qcow2 file that make image wrote}" "${FLAVOR:?a flavour with a GPU}" "${SSH_KEY:?name of your key}" "${NETWORK:?name of the network}"
openstack image show aisandbox-0-1-0 >/dev/null 2>&1 ||
  openstack image create aisandbox-0-1-0 --file "$IMAGE" --disk-format qcow2 --container-format bare --property hw_disk_bus=virtio
openstack security group show aisandbox >/dev/null 2>&1 || {
  openstack security group create aisandbox
  openstack security group rule create aisandbox --protocol tcp --dst-port 22 --remote-ip "${SOURCE:-0.0.0.0/0}"
  openstack security group rule create aisandbox --protocol tcp --dst-port 3000 --remote-ip "${SOURCE:-0.0.0.0/0}"
  openstack security group rule create aisandbox --protocol tcp --dst-port 8000 --remote-ip "${SOURCE:-0.0.0.0/0}"
}
exec openstack server create "${NAME:-ai-sandbox}" --image aisandbox-0-1-0 --flavor "$FLAVOR" --key-name "$SSH_KEY" \
  --network "$NETWORK" --security-group aisandbox --wait ${1:+--user-data "$1"}
