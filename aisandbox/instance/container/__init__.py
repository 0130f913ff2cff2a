"""The whole appliance as one container: what stands in for the machine's systemd, journal and cloud-init."""
