# AWS: an instance of Debian's own AMI becomes an unencrypted AMI, as the AWS Marketplace wants it. Credentials are
# those of AWS's tools: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.

variable "custom_endpoint_ec2" {
  type        = string
  default     = ""
  description = "Another endpoint of the API; empty for AWS's own."
}

variable "source_image" {
  type        = string
  default     = ""
  description = "AMI to start from; empty for Debian's newest."
}

variable "source_owner" {
  type        = string
  default     = "136693071363"
  description = "Whose AMIs are searched. Debian's account."
}

variable "source_name" {
  type    = string
  default = "debian-12-amd64-*"
}

variable "size" {
  type        = string
  default     = "m7i.xlarge"
  description = "Instance type of the bake; no GPU takes part."
}

variable "region" {
  type        = string
  default     = "us-east-1"
  description = "The AWS Marketplace takes AMIs from us-east-1 only."
}

variable "disk_gib" {
  type    = number
  default = 40
}

variable "subnet_id" {
  type        = string
  default     = ""
  description = "Empty for the default VPC's."
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

source "amazon-ebs" "image" {
  custom_endpoint_ec2         = var.custom_endpoint_ec2
  region                      = var.region
  skip_region_validation      = var.custom_endpoint_ec2 != ""
  skip_credential_validation  = var.custom_endpoint_ec2 != ""
  skip_metadata_api_check     = var.custom_endpoint_ec2 != ""
  source_ami                  = var.source_image
  instance_type               = var.size
  subnet_id                   = var.subnet_id
  associate_public_ip_address = true
  user_data                   = var.user_data
  ami_name                    = var.image_name
  ami_description             = "AI Sandbox ${var.image_version} (${var.flavour}) on Debian 12"
  ami_virtualization_type     = "hvm"
  ena_support                 = true
  sriov_support               = true
  ssh_username                = var.ssh_username
  ssh_private_key_file        = var.ssh_private_key_file
  ssh_timeout                 = "15m"
  shutdown_behavior           = "terminate"

  dynamic "source_ami_filter" {
    for_each = var.source_image == "" ? [var.source_name] : []
    content {
      filters = {
        name                = source_ami_filter.value
        root-device-type    = "ebs"
        virtualization-type = "hvm"
      }
      owners      = [var.source_owner]
      most_recent = true
    }
  }

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = var.disk_gib
    volume_type           = "gp3"
    iops                  = 3000
    throughput            = 125
    encrypted             = false
    delete_on_termination = true
  }

  run_tags = {
    Name    = var.image_name
    purpose = "aisandbox-bake"
  }

  tags = {
    Name    = var.image_name
    version = var.image_version
    flavour = var.flavour
  }
}
