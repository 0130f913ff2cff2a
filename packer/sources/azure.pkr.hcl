# Azure: a virtual machine of the second generation becomes a managed image and, for the Marketplace, a version in a
# compute gallery. Credentials are those of a service principal.

variable "client_id" {
  type    = string
  default = env("ARM_CLIENT_ID")
}

variable "client_secret" {
  type      = string
  default   = env("ARM_CLIENT_SECRET")
  sensitive = true
}

variable "subscription_id" {
  type    = string
  default = env("ARM_SUBSCRIPTION_ID")
}

variable "tenant_id" {
  type    = string
  default = env("ARM_TENANT_ID")
}

variable "cloud_environment_name" {
  type    = string
  default = "Public"
}

variable "source_image" {
  type        = string
  default     = "12-gen2"
  description = "SKU of Debian's offer debian-12."
}

variable "size" {
  type        = string
  default     = "Standard_D4s_v5"
  description = "Size of the bake's machine; no GPU takes part."
}

variable "region" {
  type    = string
  default = "eastus"
}

variable "disk_gib" {
  type        = number
  default     = 50
  description = "The Marketplace recommends 30 to 50."
}

variable "resource_group" {
  type        = string
  default     = "aisandbox"
  description = "Group that gets the image; it must exist."
}

variable "gallery" {
  type        = string
  default     = ""
  description = "Compute gallery in that group that gets the image as a version of its definition `aisandbox`, too."
}

variable "ssh_username" {
  type    = string
  default = "packer"
}

variable "finish" {
  type        = string
  default     = "waagent -force -deprovision+user"
  description = "Shell command, as root, that ends the bake. Removes the user that Azure made, too."
}

source "azure-arm" "image" {
  client_id                          = var.client_id
  client_secret                      = var.client_secret
  subscription_id                    = var.subscription_id
  tenant_id                          = var.tenant_id
  cloud_environment_name             = var.cloud_environment_name
  os_type                            = "Linux"
  image_publisher                    = "Debian"
  image_offer                        = "debian-12"
  image_sku                          = var.source_image
  vm_size                            = var.size
  location                           = var.region
  os_disk_size_gb                    = var.disk_gib
  managed_image_name                 = var.image_name
  managed_image_resource_group_name  = var.resource_group
  managed_image_storage_account_type = "Premium_LRS"
  ssh_username                       = var.ssh_username
  ssh_private_key_file               = var.ssh_private_key_file
  ssh_timeout                        = "15m"

  dynamic "shared_image_gallery_destination" {
    for_each = var.gallery == "" ? [] : [var.gallery]
    content {
      subscription        = var.subscription_id
      resource_group      = var.resource_group
      gallery_name        = shared_image_gallery_destination.value
      image_name          = "aisandbox"
      image_version       = var.image_version
      replication_regions = [var.region]
    }
  }

  azure_tags = {
    purpose = "aisandbox-bake"
    version = var.image_version
    flavour = var.flavour
  }
}
