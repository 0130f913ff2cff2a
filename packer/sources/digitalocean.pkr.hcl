# DigitalOcean: a droplet becomes a snapshot, which the Vendor Portal takes by its number.

variable "api_token" {
  type      = string
  default   = env("DIGITALOCEAN_TOKEN")
  sensitive = true
}

variable "api_url" {
  type        = string
  default     = ""
  description = "Another endpoint of the API; empty for DigitalOcean's own."
}

variable "source_image" {
  type    = string
  default = "debian-12-x64"
}

variable "size" {
  type        = string
  default     = "s-4vcpu-8gb"
  description = "Plan of the bake. The snapshot fits plans with at least its disk (160 GB); GPU plans have 500 GB and more."
}

variable "region" {
  type    = string
  default = "nyc3"
}

variable "snapshot_timeout" {
  type        = string
  default     = "120m"
  description = "A snapshot of a large disk takes long; Packer waits as long for one that has failed, too."
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

source "digitalocean" "image" {
  api_token            = var.api_token
  api_url              = var.api_url
  image                = var.source_image
  size                 = var.size
  region               = var.region
  droplet_name         = var.image_name
  snapshot_name        = var.image_name
  snapshot_timeout     = var.snapshot_timeout
  state_timeout        = "15m"
  tags                 = ["aisandbox-bake"]
  user_data            = var.user_data
  ssh_username         = var.ssh_username
  ssh_private_key_file = var.ssh_private_key_file
  ssh_timeout          = "15m"
}
