"""Azure: the ARM template of a VM, and the form of the portal that asks for its parameters."""

from __future__ import annotations

from typing import Any

from aisandbox.builder.listing import machine, names, ports, texts
from aisandbox.builder.listing.files import File, Files, as_json, choices, mismatch, optional
from aisandbox.builder.listing.ports import Door
from aisandbox.instance.choose.options import SECTION
from aisandbox.manifest import Manifest, Option

Json = dict[str, Any]
SUMMARY = 100
"""Most characters of the summary in search results."""
DESCRIPTION = 5000
"""Most characters of the description, with its HTML."""


def files(manifest: Manifest, target: str) -> Files:
    product, listing = manifest.product, manifest.listing
    points = "".join(f"<li>{highlight}</li>" for highlight in listing.highlights)
    return {
        "mainTemplate.json": as_json(
            _template(manifest, target), "ARM template; with the form below, a zip for Partner Center"
        ),
        "createUiDefinition.json": as_json(_form(manifest, target), "the portal's form"),
        "summary.txt": File(f"{product.tagline}\n", f"search results summary (at most {SUMMARY} characters)"),
        "description.html": File(
            f"<p>{texts.fitted(listing.description, DESCRIPTION - 1000)}</p>\n<ul>{points}</ul>\n",
            "description of the offer",
        ),
    }


def _template(manifest: Manifest, target: str) -> Json:
    return {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": _content_version(manifest),
        "parameters": {**_machine(manifest, target), **{names.camel(o): _parameter(o) for o in manifest.options}},
        "variables": {
            "choice": {names.plain(option): f"[parameters('{names.camel(option)}')]" for option in manifest.options},
            # JSON is YAML, and quotes every value. Custom data cannot be read through Azure's API, unlike user data.
            "section": f"[createObject('{SECTION}', variables('choice'))]",
            "customData": "[base64(concat('#cloud-config\n', string(variables('section'))))]",
            "subnet": "[resourceId('Microsoft.Network/virtualNetworks/subnets', parameters('vmName'), 'default')]",
        },
        "resources": _resources(manifest),
        "outputs": _outputs(manifest),
    }


def _content_version(manifest: Manifest) -> str:
    numbers = manifest.product.version.split("-")[0].split(".")
    return ".".join((*numbers, "0", "0", "0", "0")[:4])


def _machine(manifest: Manifest, target: str) -> Json:
    return {
        "location": {"type": "string", "defaultValue": "[resourceGroup().location]"},
        "vmName": {"type": "string", "defaultValue": manifest.product.id, "minLength": 1, "maxLength": 64},
        "vmSize": {
            "type": "string",
            "defaultValue": machine.size(manifest, target),
            "allowedValues": list(machine.sizes(manifest, target)),
        },
        "imageId": {"type": "string", "metadata": {"description": "Resource id of the image or gallery version."}},
        "adminUsername": {"type": "string", "defaultValue": manifest.os.default_user},
        "sshPublicKey": {"type": "string", "metadata": {"description": "One line of an OpenSSH public key file."}},
        "diskSizeGb": {
            "type": "int",
            "defaultValue": machine.DISK_GB,
            "minValue": machine.LEAST_DISK_GB,
            "maxValue": 4095,
        },
        "sourceAddresses": {
            "type": "string",
            "defaultValue": "*",
            "metadata": {"description": "Network that may reach the machine; * for all."},
        },
    }


def _parameter(option: Option) -> Json:
    parameter: Json = {
        "type": "securestring" if option.type == "secret" else "string",
        "defaultValue": "" if option.default is None or not option.choices else option.default,
    }
    if option.choices:
        parameter["allowedValues"] = list(choices(option))
    return {**parameter, "metadata": {"description": option.help}}


def _rule(manifest: Manifest, door: Door, priority: int) -> Json:
    access = "Allow"
    if not door.public and door.option:
        given = f"parameters('{names.camel(manifest.options_by_key[door.option])}')"
        opens = f"equals({given}, '{door.value}')" if door.value else f"not(empty({given}))"
        access = f"[if({opens}, 'Allow', 'Deny')]"
    return {
        "name": door.name,
        "properties": {
            "description": door.label,
            "priority": priority,
            "direction": "Inbound",
            "access": access,
            "protocol": "Tcp",
            "sourceAddressPrefix": "*" if door.name == "http" else "[parameters('sourceAddresses')]",
            "sourcePortRange": "*",
            "destinationAddressPrefix": "*",
            "destinationPortRange": str(door.port),
        },
    }


def _resources(manifest: Manifest) -> list[Json]:
    name, place = "[parameters('vmName')]", "[parameters('location')]"

    def own(kind: str) -> str:
        return f"[resourceId('{kind}', parameters('vmName'))]"

    group, address = "Microsoft.Network/networkSecurityGroups", "Microsoft.Network/publicIPAddresses"
    network, card = "Microsoft.Network/virtualNetworks", "Microsoft.Network/networkInterfaces"
    doors = enumerate(ports.doors(manifest))
    return [
        {
            "type": group,
            "apiVersion": "2024-05-01",
            "name": name,
            "location": place,
            "properties": {"securityRules": [_rule(manifest, door, 1000 + 10 * number) for number, door in doors]},
        },
        {
            "type": address,
            "apiVersion": "2024-05-01",
            "name": name,
            "location": place,
            "sku": {"name": "Standard"},
            "properties": {"publicIPAllocationMethod": "Static"},
        },
        {
            "type": network,
            "apiVersion": "2024-05-01",
            "name": name,
            "location": place,
            "dependsOn": [own(group)],
            "properties": {
                "addressSpace": {"addressPrefixes": ["10.0.0.0/24"]},
                "subnets": [
                    {
                        "name": "default",
                        "properties": {"addressPrefix": "10.0.0.0/24", "networkSecurityGroup": {"id": own(group)}},
                    }
                ],
            },
        },
        {
            "type": card,
            "apiVersion": "2024-05-01",
            "name": name,
            "location": place,
            "dependsOn": [own(network), own(address)],
            "properties": {
                "ipConfigurations": [
                    {
                        "name": "default",
                        "properties": {
                            "subnet": {"id": "[variables('subnet')]"},
                            "publicIPAddress": {"id": own(address)},
                        },
                    }
                ]
            },
        },
        {
            "type": "Microsoft.Compute/virtualMachines",
            "apiVersion": "2024-07-01",
            "name": name,
            "location": place,
            "dependsOn": [own(card)],
            "properties": {
                "hardwareProfile": {"vmSize": "[parameters('vmSize')]"},
                "osProfile": {
                    "computerName": name,
                    "adminUsername": "[parameters('adminUsername')]",
                    "customData": "[variables('customData')]",
                    "linuxConfiguration": {
                        "disablePasswordAuthentication": True,
                        "ssh": {
                            "publicKeys": [
                                {
                                    "path": "[format('/home/{0}/.ssh/authorized_keys', parameters('adminUsername'))]",
                                    "keyData": "[parameters('sshPublicKey')]",
                                }
                            ]
                        },
                    },
                },
                "storageProfile": {
                    "imageReference": {"id": "[parameters('imageId')]"},
                    "osDisk": {
                        "createOption": "FromImage",
                        "diskSizeGB": "[parameters('diskSizeGb')]",
                        "managedDisk": {"storageAccountType": "Premium_LRS"},
                    },
                },
                "networkProfile": {"networkInterfaces": [{"id": own(card)}]},
                "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
            },
        },
    ]


def _outputs(manifest: Manifest) -> Json:
    address = "reference(resourceId('Microsoft.Network/publicIPAddresses', parameters('vmName'))).ipAddress"
    urls = {
        f"{door.name}Url": f"[format('http://{{0}}:{door.port}{'/v1' if door.name == 'api' else ''}', {address})]"
        for door in ports.services(manifest)
    }
    urls["ssh"] = f"[format('ssh {{0}}@{{1}}', parameters('adminUsername'), {address})]"
    return {name: {"type": "string", "value": value} for name, value in urls.items()}


def _form(manifest: Manifest, target: str) -> Json:
    size = {
        "name": "vmSize",
        "type": "Microsoft.Compute.SizeSelector",
        "label": "Size",
        "toolTip": "A size with a GPU.",
        "recommendedSizes": list(machine.sizes(manifest, target))[:3],
        "constraints": {"allowedSizes": list(machine.sizes(manifest, target))},
        "osPlatform": "Linux",
        "count": 1,
    }
    key: Json = {
        "name": "sshPublicKey",
        "type": "Microsoft.Compute.CredentialsCombo",
        "label": {"authenticationType": "Authentication type", "sshPublicKey": "SSH public key"},
        "toolTip": {"sshPublicKey": "One line of an OpenSSH public key file."},
        "constraints": {"required": True},
        "options": {"hideConfirmation": True, "hidePassword": True},
        "osPlatform": "Linux",
    }
    basics = [_text_box("vmName", "Name of the machine", manifest.product.id, "^[a-z][a-z0-9-]{0,62}[a-z0-9]$", True)]
    image = _text_box("imageId", "Resource id of the image", "", "^/subscriptions/.+$", True)
    source = _text_box("sourceAddresses", "Network that may reach the machine", "*", r"^(\*|[0-9A-Fa-f:./]+)$", True)
    own = ("vmName", "[basics('vmName')]"), ("location", "[location()]")
    outputs = {
        **dict(own),
        "imageId": "[steps('machine').imageId]",
        "vmSize": "[steps('machine').vmSize]",
        "sshPublicKey": "[steps('machine').sshPublicKey.sshPublicKey]",
        "sourceAddresses": "[steps('machine').sourceAddresses]",
        **{names.camel(option): f"[steps('choice').{names.camel(option)}]" for option in manifest.options},
    }
    return {
        "$schema": "https://schema.management.azure.com/schemas/0.1.2-preview/CreateUIDefinition.MultiVm.json#",
        "handler": "Microsoft.Azure.CreateUIDef",
        "version": "0.1.2-preview",
        "parameters": {
            "basics": basics,
            "steps": [
                {"name": "machine", "label": "The machine", "elements": [image, size, key, source]},
                {
                    "name": "choice",
                    "label": "What to serve, and to whom",
                    "elements": [_warning(manifest), *(_element(option) for option in manifest.options)],
                },
            ],
            "outputs": outputs,
        },
    }


def _warning(manifest: Manifest) -> Json:
    open_ports = " and ".join(str(door.port) for door in ports.services(manifest))
    text = (
        f"Nothing here is required. Without a key, a password or allowed addresses, ports {open_ports} are open to "
        "everyone who can reach them, and the chat has none of the sandbox's terminal, files and tools."
    )
    return {
        "name": "open",
        "type": "Microsoft.Common.InfoBox",
        "visible": True,
        "options": {"icon": "Warning", "text": text},
    }


def _text_box(
    name: str,
    label: str,
    default: str,
    pattern: str,
    required: bool,
    hint: str = "",
    example: str = "",
    message: str = "",
) -> Json:
    return {
        "name": name,
        "type": "Microsoft.Common.TextBox",
        "label": label,
        "defaultValue": default,
        "placeholder": example,
        "toolTip": hint or label,
        "constraints": {
            "required": required,
            "regex": pattern,
            "validationMessage": message or f"This does not fit: {label}.",
        },
    }


def _element(option: Option) -> Json:
    name = names.camel(option)
    if option.choices:
        return {
            "name": name,
            "type": "Microsoft.Common.DropDown",
            "label": option.label,
            "defaultValue": option.default or "Leave it to the appliance",
            "toolTip": option.help,
            "constraints": {
                "required": False,
                "allowedValues": [
                    {"label": choice or "Leave it to the appliance", "value": choice} for choice in choices(option)
                ],
            },
        }
    if option.type == "secret":
        return {
            "name": name,
            "type": "Microsoft.Common.PasswordBox",
            "label": {"password": option.label, "confirmPassword": f"{option.label}, again"},
            "toolTip": option.help,
            "constraints": {
                "required": False,
                "regex": optional(option),
                "validationMessage": mismatch(option),
            },
            "options": {"hideConfirmation": True},
        }
    example = "" if option.example is None else str(option.example)
    return _text_box(name, option.label, "", optional(option), False, option.help, example, mismatch(option))
