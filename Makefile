# AI Sandbox. `make` alone prints the targets.
SHELL := /bin/sh
.DEFAULT_GOAL := help
FLAVOUR ?= cpu
NAME ?= default
PYTHON := .venv/bin/python
BUILD := $(PYTHON) -m aisandbox.builder
# Root is needed for overlays, containers and the bridge; with sudo the caller's caches are kept.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env)
export AISANDBOX_REPO := $(CURDIR)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Containers' images set it; every Python would then compile our code and Ansible's anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Print this
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z-]*:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

##@ Use
.PHONY: up down ssh tunnel status logs
up: builder ## Set up, bake, boot and wait until you can chat (MODEL=ORG/NAME USER_DATA=file FLAVOUR=cpu|cuda)
	@$(SUDO) $(BUILD) up --flavour $(FLAVOUR) --name $(NAME) $(if $(MODEL),--model '$(MODEL)') $(if $(USER_DATA),--user-data '$(USER_DATA)')
down: builder ## Power the machine off; its disk and data stay
	@$(SUDO) $(BUILD) down --name $(NAME)
ssh: builder ## Log in to the machine
	@$(SUDO) $(BUILD) ssh --name $(NAME)
tunnel: builder ## Show the machine's sandbox at http://localhost:8080, until you press Ctrl-C (PORT=8080)
	@$(SUDO) $(BUILD) tunnel --name $(NAME) $(if $(PORT),--port $(PORT))
status: builder ## Show the state of the machine and its services
	@$(SUDO) $(BUILD) status --name $(NAME)
logs: builder ## Show the journal of the machine's services
	@$(SUDO) $(BUILD) logs --name $(NAME)

##@ Use the sandbox alone, as one container
.PHONY: sandbox-up sandbox-down
sandbox-up: container ## Bake it, start it with podman, wait until all of it works (PORT=8080 WORKSPACE=folder MEMORY=4g)
	@$(SUDO) $(BUILD) sandbox-up $(if $(CONTAINER),--name $(CONTAINER)) $(if $(PORT),--port $(PORT)) $(if $(WORKSPACE),--workspace '$(WORKSPACE)') $(if $(MEMORY),--memory $(MEMORY))
sandbox-down: container ## Stop it; workspace and state stay
	@$(SUDO) $(BUILD) sandbox-down $(if $(CONTAINER),--name $(CONTAINER))

##@ Build
.PHONY: image sandbox-image guide lock docs
image: builder ## Bake and write disk images and manifest to build/image/, or bake on a platform (FLAVOUR=cpu|cuda TARGET=name SOURCE=image)
	@$(SUDO) $(BUILD) image --flavour $(FLAVOUR) $(if $(TARGET),--target '$(TARGET)') $(if $(SOURCE),--source '$(SOURCE)')
sandbox-image: container ## Bake the sandbox's container and write build/image/sandbox.tar for `docker load`
	@$(SUDO) $(BUILD) sandbox-image
guide: builder ## Teach the embedded guide after a change of its corpus: an hour on two cores, minutes on a GPU (SAMPLE=4 OUT=file to try)
	@$(PYTHON) -m aisandbox.builder.guide $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(OUT),--out '$(OUT)' --kept '$(OUT).kept')
lock: builder ## Resolve every Python environment anew, with hashes (ONLY=NAME for one of locks/)
	@$(PYTHON) -m aisandbox.builder.lock $(ONLY)
docs: builder ## Renew the tables in README.md and docs/ that are made from marketplace.yaml
	@$(PYTHON) -m aisandbox.builder.documents

##@ Release
.PHONY: validate check size audit compare listing publish release
validate: builder ## Check the Packer template of every target, with fake credentials (TARGET=name for one)
	@$(SUDO) $(BUILD) validate $(if $(TARGET),--target $(TARGET))
check: builder ## Check the baked image, or an image, a folder or a host (SUBJECT=file|folder|user@host TARGET=name FLAVOUR=cuda ENGINE=yes)
	@$(SUDO) $(BUILD) check $(if $(SUBJECT),'$(SUBJECT)') --flavour $(FLAVOUR) $(if $(ENGINE),--engine) $(if $(KEY),--key '$(KEY)') $(if $(TARGET),--target $(TARGET))
size: builder ## Show what makes the baked image large (FLAVOUR=cpu|cuda)
	@$(SUDO) $(BUILD) size --flavour $(FLAVOUR)
audit: builder ## Look for known vulnerabilities in what the image is made of; asks PyPI, Debian and npm (SBOM=file DATA=file)
	@$(SUDO) $(BUILD) audit --flavour $(FLAVOUR) $(if $(SBOM),--sbom '$(SBOM)') $(if $(DATA),--data '$(DATA)')
compare: builder ## Tell what changed from one image to another (BEFORE=manifest.json AFTER=manifest.json)
	@$(BUILD) compare '$(BEFORE)' '$(AFTER)'
listing: builder ## Write every marketplace's files to build/listing/ (TARGET=name for one)
	@$(BUILD) listing $(if $(TARGET),--target $(TARGET))
publish: builder ## Show what would be sent to a marketplace; CONFIRM=yes sends it (TARGET=name IMAGE=id)
	@$(BUILD) publish '$(TARGET)' $(if $(IMAGE),--image '$(IMAGE)') $(if $(CONFIRM),--confirm)
release: builder ## Make the signed bundle for `aisandbox upgrade` in build/release/ (KEY=minisign key FLAVOUR=cpu|cuda SINCE=folder)
	@$(SUDO) $(BUILD) release --flavour $(FLAVOUR) --key '$(KEY)' $(if $(SINCE),--since '$(SINCE)')

##@ Test
# One runner for all suites: progress, logs and costs in build/test-report/ (PYTEST='-k name' for further words).
TESTS := $(SUDO) $(PYTHON) -m tests.runner $(if $(PYTEST),--pytest='$(PYTEST)')
.PHONY: lint lint-ansible lint-python lint-rest test test-unit test-fresh test-gateway test-sandbox test-container test-roles test-boot test-e2e test-image test-marketplace test-gpu fuzz bench
lint: dev ## Check Python, Ansible, YAML, shell and Packer files
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint-ansible lint-python lint-rest
lint-ansible:
	@ansible-lint -q
lint-python:
	@ruff check --quiet
	@ruff format --check --quiet
	@mypy --no-error-summary
lint-rest:
	@yamllint .
	@shellcheck scripts/*.sh ansible/enter-container ansible/*.sh aisandbox/instance/*/*.sh roles/motd/templates/motd.sh.j2 tests/support/bin/*
	@packer fmt -check packer
	@$(BUILD) validate >/dev/null
test: lint ## Set up, lint and run every test
	@$(TESTS)
test-unit: dev ## Unit tests, four side by side: many of them wait
	@$(TESTS) unit
test-fresh: dev ## The set-up on a pristine Debian: as root, and as a user with sudo behind a proxy
	@$(TESTS) fresh
test-gateway: dev ## nginx and Open WebUI as on the appliance, in Chromium
	@$(TESTS) gateway
test-sandbox: dev ## The sandbox's server and desktop as processes of this host, by its clients and in Chromium
	@$(TESTS) sandbox
test-container: dev ## The containers under podman: the sandbox alone, and the whole appliance
	@$(TESTS) container
test-roles: dev ## Every Ansible role by molecule (PYTEST='-k name' for one)
	@$(TESTS) roles
test-boot: dev ## A booted machine: first boot, choices, restarts, reboots
	@$(TESTS) boot
test-e2e: dev ## Chat in Chromium and the API with official clients, on a booted machine
	@$(TESTS) e2e
test-image: dev ## Baking, its failures, and the disk image under QEMU
	@$(TESTS) image
test-marketplace: dev ## Bakes and deployments on simulated clouds, on real machines
	@$(TESTS) marketplace
# A default flavour is not a wish: without a wish it is the GPU.
GPU_FLAVOUR := $(if $(filter file,$(origin FLAVOUR)),cuda,$(FLAVOUR))
test-gpu: $(if $(filter cpu,$(GPU_FLAVOUR)),dev) ## Prove on a machine with an NVIDIA GPU what needs one, in ten minutes (MODEL=ORG/NAME|folder FLAVOUR=cpu to check the kit)
	@python3 -m tests.gpu --flavour $(GPU_FLAVOUR) $(if $(MODEL),--model '$(MODEL)')
SECONDS ?= 300
fuzz: dev ## Random input for parsers, the sandbox and the API port, until something breaks (SECONDS=10 TARGETS="rfb options" SEED=1)
	@$(PYTHON) -m tests.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(TARGETS)
BENCHMARKS ?= first_boot cold_disk engine_start guide_speed documents sandbox_exec sandbox_code sandbox_cdp sandbox_file download
bench: dev ## Benchmarks; results go to build/bench/ (BENCHMARKS=sandbox_exec for one)
	@for name in $(BENCHMARKS); do $(SUDO) $(PYTHON) -m tests.bench.bench_$$name || exit; done

##@ Set up and clean
.PHONY: builder container dev clean clean-cache
builder: ## Install what baking and booting need
	@scripts/setup.sh builder
container: builder ## Install what the sandbox's container needs, too
	@scripts/setup.sh container
dev: ## Install what tests and linters need, too
	@scripts/setup.sh dev
clean: ## Stop and delete machines, images and logs; baked layers stay in the cache
	@[ ! -x $(PYTHON) ] || $(SUDO) $(BUILD) remove --all
	@$(SUDO) rm -rf build
clean-cache: ## Delete baked layers, wheels and packages of every checkout
	@$(SUDO) rm -rf "$${AISANDBOX_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/aisandbox}"
