# Vultr: an instance becomes a snapshot, which the vendor portal takes. Needs Packer 1.7 and the plugin
# github.com/vultr/vultr.

variable "api_key" {
  type      = string
  default   = env("VULTR_API_KEY")
  sensitive = true
}

variable "source_image" {
  type        = number
  default     = 2136
  description = "Number of the operating system: 2136 is Debian 12 (GET /v2/os lists them)."
}

variable "size" {
  type        = string
  default     = "vc2-4c-8gb"
  description = "Plan of the bake. A snapshot fits plans with at least its disk (160 GB)."
}

variable "region" {
  type    = string
  default = "ewr"
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

source "vultr" "image" {
  api_key              = var.api_key
  os_id                = var.source_image
  plan_id              = var.size
  region_id            = var.region
  instance_label       = var.image_name
  tag                  = "aisandbox-bake"
  snapshot_description = "${var.image_name} (${var.image_version}, ${var.flavour})"
  state_timeout        = "60m"
  userdata             = var.user_data
  ssh_username         = var.ssh_username
  ssh_private_key_file = var.ssh_private_key_file
  ssh_timeout          = "15m"
}
