# Packer >= 1.7 brings no builders of its own: `packer init packer/plugins` installs these. Apart from the templates,
# because Packer 1.6 does not know `required_plugins` (and has the builders built in).
packer {
  required_plugins {
    ansible = {
      source  = "github.com/hashicorp/ansible"
      version = ">= 1.1.0"
    }
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = ">= 1.1.0"
    }
  }
}
