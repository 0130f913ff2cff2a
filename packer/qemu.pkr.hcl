# Bakes the image inside a virtual machine, for hosts whose KVM works (`make image BUILDER=qemu` probes by booting).
# The provisioning is the same playbook with the same variables as in local.pkr.hcl, all layers in one go.

variable "source_image" {
  type        = string
  description = "Debian 12 cloud image (qcow2) to start from: a path or a URL."
}

variable "source_checksum" {
  type        = string
  default     = "none"
  description = "Its checksum, such as sha512:..."
}

variable "vars_file" {
  type        = string
  description = "Variables of the build, as JSON."
}

variable "seed_directory" {
  type        = string
  description = "NoCloud seed (meta-data, user-data) that lets the builder in by key."
}

variable "ssh_username" {
  type    = string
  default = "debian"
}

variable "ssh_private_key_file" {
  type = string
}

variable "output_directory" {
  type    = string
  default = "build/qemu"
}

variable "accelerator" {
  type    = string
  default = "kvm"
}

variable "disk_size" {
  type        = string
  default     = "32G"
  description = "Room for the bake; first boot grows the file system to the instance's disk."
}

variable "headless" {
  type    = bool
  default = true
}

source "qemu" "vm" {
  accelerator          = var.accelerator
  cd_files             = ["${var.seed_directory}/meta-data", "${var.seed_directory}/user-data"]
  cd_label             = "cidata"
  cpus                 = 2
  disk_compression     = true
  disk_image           = true
  disk_interface       = "virtio"
  disk_size            = var.disk_size
  format               = "qcow2"
  headless             = var.headless
  iso_checksum         = var.source_checksum
  iso_url              = var.source_image
  memory               = 8192
  net_device           = "virtio-net"
  output_directory     = var.output_directory
  shutdown_command     = "sudo shutdown -P now"
  ssh_private_key_file = var.ssh_private_key_file
  ssh_timeout          = "15m"
  ssh_username         = var.ssh_username
  vm_name              = "aisandbox.qcow2"
}

build {
  sources = ["source.qemu.vm"]

  provisioner "ansible" {
    playbook_file    = "ansible/image.yml"
    groups           = ["image"]
    user             = var.ssh_username
    use_proxy        = false
    ansible_env_vars = ["ANSIBLE_CONFIG=ansible/ansible.cfg", "ANSIBLE_HOST_KEY_CHECKING=False"]
    extra_arguments  = ["--become", "--extra-vars", "@${var.vars_file}"]
  }

  post-processor "checksum" {
    checksum_types = ["sha256"]
    output         = "${var.output_directory}/{{.ChecksumType}}sums"
  }
}
