terraform {
  required_version = ">= 1.3"
  required_providers {
    digitalocean = {
      source  = "digitalocean/digitalocean"
      version = "~> 2.40"
    }
  }
}

# The access token is read from DIGITALOCEAN_TOKEN.
provider "digitalocean" {}

variable "image" {
  description = "Number of the snapshot, or slug of the 1-Click App."
  type        = string
}

variable "region" {
  description = "Region that has the size."
  type        = string
  default     = "nyc2"
}

variable "size" {
  description = "Size of the Droplet."
  type        = string
  default     = "gpu-4000adax1-20gb"
}

variable "ssh_key" {
  description = "Fingerprint of your SSH key at DigitalOcean."
  type        = string
}

variable "source_addresses" {
  description = "Networks that may reach the Droplet."
  type        = list(string)
  default     = ["0.0.0.0/0", "::/0"]
}

resource "digitalocean_droplet" "instance" {
  name      = "aisandbox"
  image     = var.image
  region    = var.region
  size      = var.size
  ssh_keys  = [var.ssh_key]
  user_data = local.user_data
}

resource "digitalocean_firewall" "instance" {
  name        = "aisandbox"
  droplet_ids = [digitalocean_droplet.instance.id]

  # SSH
  inbound_rule {
    protocol         = "tcp"
    port_range       = "22"
    source_addresses = var.source_addresses
  }

  # Chat page (Open WebUI)
  inbound_rule {
    protocol         = "tcp"
    port_range       = "3000"
    source_addresses = var.source_addresses
  }

  # OpenAI-compatible API (vLLM)
  inbound_rule {
    protocol         = "tcp"
    port_range       = "8000"
    source_addresses = var.source_addresses
  }

  # Sandbox
  dynamic "inbound_rule" {
    for_each = var.sandbox == "public" ? [1] : []
    content {
      protocol         = "tcp"
      port_range       = "8080"
      source_addresses = var.source_addresses
    }
  }

  # Redirect to HTTPS; open while a domain is set
  dynamic "inbound_rule" {
    for_each = var.domain != "" ? [1] : []
    content {
      protocol         = "tcp"
      port_range       = "80"
      source_addresses = ["0.0.0.0/0", "::/0"]
    }
  }

  # Chat page and API by HTTPS; open while a domain is set
  dynamic "inbound_rule" {
    for_each = var.domain != "" ? [1] : []
    content {
      protocol         = "tcp"
      port_range       = "443"
      source_addresses = var.source_addresses
    }
  }

  outbound_rule {
    protocol              = "tcp"
    port_range            = "1-65535"
    destination_addresses = ["0.0.0.0/0", "::/0"]
  }

  outbound_rule {
    protocol              = "udp"
    port_range            = "1-65535"
    destination_addresses = ["0.0.0.0/0", "::/0"]
  }
}

output "chat_url" {
  value = "http://${digitalocean_droplet.instance.ipv4_address}:3000"
}

output "api_url" {
  value = "http://${digitalocean_droplet.instance.ipv4_address}:8000/v1"
}
