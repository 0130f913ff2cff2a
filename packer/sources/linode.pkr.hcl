# Akamai (Linode): an instance becomes a custom image, which a StackScript is deployed with. Needs Packer 1.7 and the
# plugin github.com/linode/linode. Akamai's limit for an image is 6 GB unless an account's is raised.

variable "linode_token" {
  type      = string
  default   = env("LINODE_TOKEN")
  sensitive = true
}

variable "source_image" {
  type    = string
  default = "linode/debian12"
}

variable "size" {
  type        = string
  default     = "g6-standard-4"
  description = "Plan of the bake: 4 cores, 8 GB, 160 GB."
}

variable "region" {
  type    = string
  default = "us-ord"
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

source "linode" "image" {
  linode_token         = var.linode_token
  image                = var.source_image
  instance_type        = var.size
  region               = var.region
  instance_label       = var.image_name
  instance_tags        = ["aisandbox-bake"]
  authorized_keys      = [var.ssh_public_key]
  swap_size            = 0
  image_label          = var.image_name
  image_description    = "AI Sandbox ${var.image_version} (${var.flavour}) on Debian 12"
  image_create_timeout = "60m"
  state_timeout        = "15m"
  ssh_username         = var.ssh_username
  ssh_private_key_file = var.ssh_private_key_file
  ssh_timeout          = "15m"
}
