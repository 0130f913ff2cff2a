# OpenStack: a server becomes an image of the project. Credentials are those of an openrc file: OS_AUTH_URL,
# OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME, and OS_USER_DOMAIN_NAME, OS_PROJECT_DOMAIN_NAME where a cloud wants them.

variable "identity_endpoint" {
  type    = string
  default = env("OS_AUTH_URL")
}

variable "source_image" {
  type        = string
  default     = ""
  description = "Id of the image to start from; empty for the newest of the name."
}

variable "source_name" {
  type        = string
  default     = "debian-12"
  description = "Clouds name Debian's image as they like."
}

variable "size" {
  type        = string
  default     = "m1.large"
  description = "Flavor of the bake: 4 cores, 8 GB and 40 GB will do; no GPU takes part."
}

variable "region" {
  type    = string
  default = env("OS_REGION_NAME")
}

variable "network_id" {
  type        = string
  default     = ""
  description = "Network of the bake; empty where a project has but one."
}

variable "floating_ip_network" {
  type        = string
  default     = ""
  description = "Network that gives addresses that can be reached from here; empty where servers have such at once."
}

variable "ssh_username" {
  type        = string
  default     = "root"
  description = "Root, by user-data, so that the source image's own user is never made."
}

variable "finish" {
  type        = string
  default     = "true"
  description = "Shell command, as root, that ends the bake."
}

source "openstack" "image" {
  identity_endpoint    = var.identity_endpoint
  region               = var.region
  source_image         = var.source_image
  flavor               = var.size
  networks             = var.network_id == "" ? [] : [var.network_id]
  floating_ip_network  = var.floating_ip_network
  instance_name        = var.image_name
  image_name           = var.image_name
  image_visibility     = "private"
  image_min_disk       = 40
  config_drive         = true
  user_data            = var.user_data
  ssh_username         = var.ssh_username
  ssh_private_key_file = var.ssh_private_key_file
  ssh_timeout          = "15m"

  dynamic "source_image_filter" {
    for_each = var.source_image == "" ? [var.source_name] : []
    content {
      filters {
        name = source_image_filter.value
      }
      most_recent = true
    }
  }

  instance_metadata = {
    purpose = "aisandbox-bake"
  }

  metadata = {
    os_distro = "debian"
    version   = var.image_version
    flavour   = var.flavour
  }
}
