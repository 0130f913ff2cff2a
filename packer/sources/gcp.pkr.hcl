# Google Cloud: an instance becomes an image of a family. The service account's key file is named by
# GOOGLE_APPLICATION_CREDENTIALS.

variable "project_id" {
  type    = string
  default = env("GOOGLE_CLOUD_PROJECT")
}

variable "source_image" {
  type        = string
  default     = ""
  description = "Image to start from; empty for the newest of the family."
}

variable "source_family" {
  type    = string
  default = "debian-12"
}

variable "source_project" {
  type    = string
  default = "debian-cloud"
}

variable "size" {
  type        = string
  default     = "n2-standard-4"
  description = "Machine type of the bake; no GPU takes part."
}

variable "region" {
  type        = string
  default     = "us-central1-a"
  description = "Zone of the bake; the image is global."
}

variable "disk_gib" {
  type    = number
  default = 40
}

variable "license" {
  type        = string
  default     = ""
  description = "The Marketplace's license of the product, as the Producer Portal shows it."
}

variable "ssh_username" {
  type    = string
  default = "packer"
}

variable "finish" {
  type        = string
  default     = "userdel --force --remove packer"
  description = "Shell command, as root, that ends the bake. The guest agent made that user."
}

source "googlecompute" "image" {
  project_id              = var.project_id
  source_image            = var.source_image
  source_image_family     = var.source_family
  source_image_project_id = [var.source_project]
  machine_type            = var.size
  zone                    = var.region
  disk_size               = var.disk_gib
  disk_type               = "pd-ssd"
  instance_name           = var.image_name
  image_name              = var.image_name
  image_family            = "aisandbox-${var.flavour}"
  image_description       = "AI Sandbox ${var.image_version} (${var.flavour}) on Debian 12"
  image_licenses          = var.license == "" ? [] : [var.license]
  image_labels = {
    version = replace(var.image_version, ".", "-")
    flavour = var.flavour
  }
  labels = {
    purpose = "aisandbox-bake"
  }
  metadata = {
    enable-oslogin = "FALSE"
  }
  tags                        = ["aisandbox-bake"]
  enable_secure_boot          = false
  enable_vtpm                 = true
  enable_integrity_monitoring = true
  ssh_username                = var.ssh_username
  ssh_private_key_file        = var.ssh_private_key_file
  ssh_timeout                 = "15m"
}
