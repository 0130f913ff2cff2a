# Bakes one layer of the image over a root file system on this host: no hypervisor needed. `aisandbox bake` starts it
# inside private mount and PID namespaces in which `systemd-nspawn` holds the root file system open.
# One file without `required_plugins`, so that Packer 1.6 and later both read it (plugins/ is for 1.7 and later).

packer {
  required_version = ">= 1.6.6"
}

variable "layer" {
  type        = string
  description = "Layer to bake: a tag of ansible/image.yml."
}

variable "inventory" {
  type        = string
  description = "Ansible inventory whose host `image` is the open root file system."
}

variable "vars_file" {
  type        = string
  description = "Variables of the build, as JSON."
}

source "null" "local" {
  communicator = "none"
}

build {
  sources = ["source.null.local"]

  provisioner "shell-local" {
    environment_vars = ["ANSIBLE_CONFIG=ansible.cfg", "ANSIBLE_NOCOLOR=1"]
    inline_shebang   = "/bin/sh -e"
    inline = [
      "exec ansible-playbook --inventory '${var.inventory}' --extra-vars '@${var.vars_file}' --tags '${var.layer}' ansible/image.yml",
    ]
  }
}
