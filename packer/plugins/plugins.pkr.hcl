# Packer >= 1.7 brings no builders of its own: `packer init packer/plugins` installs these. Apart from the templates,
# because Packer 1.6 does not know `required_plugins` (and has most of the builders built in).
# Made from ansible/versions.yml by `make docs`.
packer {
  required_version = ">= 1.11.0"
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "= 1.3.9"
    }
    ansible = {
      source  = "github.com/hashicorp/ansible"
      version = "= 1.1.3"
    }
    azure = {
      source  = "github.com/hashicorp/azure"
      version = "= 2.3.3"
    }
    digitalocean = {
      source  = "github.com/digitalocean/digitalocean"
      version = "= 1.4.1"
    }
    googlecompute = {
      source  = "github.com/hashicorp/googlecompute"
      version = "= 1.1.9"
    }
    hcloud = {
      source  = "github.com/hetznercloud/hcloud"
      version = "= 1.7.2"
    }
    linode = {
      source  = "github.com/linode/linode"
      version = "= 1.6.9"
    }
    openstack = {
      source  = "github.com/hashicorp/openstack"
      version = "= 1.1.2"
    }
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = "= 1.1.2"
    }
    vultr = {
      source  = "github.com/vultr/vultr"
      version = "= 2.6.0"
    }
  }
}
