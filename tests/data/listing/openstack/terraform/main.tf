terraform {
  required_version = ">= 1.3"
  required_providers {
    openstack = {
      source  = "terraform-provider-openstack/openstack"
      version = ">= 2.0, < 4.0"
    }
  }
}

# Credentials are read from OS_CLOUD or the other OS_ variables.
provider "openstack" {}

variable "image" {
  description = "Name of the image."
  type        = string
  default     = "aisandbox-0-1-0"
}

variable "flavor" {
  description = "Flavour with a GPU."
  type        = string
}

variable "network" {
  description = "Name of the network."
  type        = string
}

variable "ssh_key" {
  description = "Name of your key pair."
  type        = string
}

variable "source_range" {
  description = "Network that may reach the server."
  type        = string
  default     = "0.0.0.0/0"
}

locals {
  doors = {
    ssh     = { port = 22, open = true, from = var.source_range }
    chat    = { port = 3000, open = true, from = var.source_range }
    api     = { port = 8000, open = true, from = var.source_range }
    sandbox = { port = 8080, open = var.sandbox == "public", from = var.source_range }
    http    = { port = 80, open = var.domain != "", from = "0.0.0.0/0" }
    https   = { port = 443, open = var.domain != "", from = var.source_range }
  }
}

resource "openstack_networking_secgroup_v2" "instance" {
  name = "aisandbox"
}

resource "openstack_networking_secgroup_rule_v2" "door" {
  for_each          = { for name, door in local.doors : name => door if door.open }
  security_group_id = openstack_networking_secgroup_v2.instance.id
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = "tcp"
  port_range_min    = each.value.port
  port_range_max    = each.value.port
  remote_ip_prefix  = each.value.from
}

resource "openstack_compute_instance_v2" "instance" {
  name            = "aisandbox"
  image_name      = var.image
  flavor_name     = var.flavor
  key_pair        = var.ssh_key
  security_groups = [openstack_networking_secgroup_v2.instance.name]
  config_drive    = true
  user_data       = local.user_data

  network {
    name = var.network
  }
}

output "chat_url" {
  value = "http://${openstack_compute_instance_v2.instance.access_ip_v4}:3000"
}

output "api_url" {
  value = "http://${openstack_compute_instance_v2.instance.access_ip_v4}:8000/v1"
}
