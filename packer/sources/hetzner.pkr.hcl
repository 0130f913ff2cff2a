# Hetzner Cloud: a server becomes a snapshot of the project. Hetzner's GPUs are in dedicated servers, which take no
# snapshot: there, ansible/site.yml makes an appliance of an installed system.

variable "token" {
  type      = string
  default   = env("HCLOUD_TOKEN")
  sensitive = true
}

variable "endpoint" {
  type        = string
  default     = ""
  description = "Another endpoint of the API; empty for Hetzner's own."
}

variable "source_image" {
  type    = string
  default = "debian-12"
}

variable "size" {
  type        = string
  default     = "ccx13"
  description = "Server type of the bake. A snapshot fits types with at least its disk (80 GB)."
}

variable "region" {
  type    = string
  default = "nbg1"
}

variable "ssh_username" {
  type    = string
  default = "root"
}

variable "finish" {
  type        = string
  default     = "true"
  description = "Shell command, as root, that ends the bake."
}

source "hcloud" "image" {
  token         = var.token
  endpoint      = var.endpoint
  image         = var.source_image
  server_type   = var.size
  location      = var.region
  server_name   = var.image_name
  snapshot_name = var.image_name
  snapshot_labels = {
    product = "aisandbox"
    version = var.image_version
    flavour = var.flavour
  }
  user_data            = var.user_data
  ssh_username         = var.ssh_username
  ssh_private_key_file = var.ssh_private_key_file
  ssh_timeout          = "15m"
}
