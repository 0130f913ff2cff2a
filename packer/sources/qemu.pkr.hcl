# QEMU: a virtual machine on this host becomes a disk image, for hosts whose KVM works (which is found out by booting).

variable "source_image" {
  type        = string
  default     = "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2"
  description = "Debian 12 cloud image (qcow2) to start from: a path or a URL."
}

variable "source_checksum" {
  type        = string
  default     = "file:https://cloud.debian.org/images/cloud/bookworm/latest/SHA512SUMS"
  description = "Its checksum, such as sha512:..., or none."
}

variable "size" {
  type        = string
  default     = "2"
  description = "Processors of the bake."
}

variable "region" {
  type        = string
  default     = "kvm"
  description = "Accelerator."
}

variable "memory_mib" {
  type    = number
  default = 8192
}

variable "disk_gib" {
  type        = number
  default     = 32
  description = "Room for the bake; first boot grows the file system to the instance's disk."
}

variable "seed_directory" {
  type        = string
  description = "NoCloud seed (meta-data, user-data) that lets the builder in."
}

variable "output_directory" {
  type = string
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

source "qemu" "image" {
  accelerator          = var.region
  cd_files             = ["${var.seed_directory}/meta-data", "${var.seed_directory}/user-data"]
  cd_label             = "cidata"
  cpus                 = var.size
  disk_compression     = true
  disk_image           = true
  disk_interface       = "virtio"
  disk_size            = "${var.disk_gib}G"
  format               = "qcow2"
  headless             = true
  iso_checksum         = var.source_checksum
  iso_url              = var.source_image
  memory               = var.memory_mib
  net_device           = "virtio-net"
  output_directory     = var.output_directory
  shutdown_command     = "systemctl poweroff"
  ssh_private_key_file = var.ssh_private_key_file
  ssh_timeout          = "15m"
  ssh_username         = var.ssh_username
  vm_name              = "${var.image_name}.qcow2"
}
