# Every target works on a fresh clone; the set-up steps are remembered by files under .venv and .collections.
SHELL      := /bin/bash
PYTHON     ?= python3
VENV       := .venv/bin
COLLECTION := .collections/ansible_collections/ggen/gvisor
# A user without password-less sudo is asked for the password once.
BECOME     := $(shell [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null || echo --ask-become-pass)
PREFIX     ?= /usr/local
SUDO       := $(shell [ "$$(id -u)" = 0 ] || [ -w $(PREFIX) ] || echo sudo)

.DEFAULT_GOAL := help
.PHONY: help try site check release install-command test lint sanity unit integration e2e lab molecule newest soak faults bench lab-up lab-down vm-up vm-down test-vm docs docs-site dist requirements clean

help: ## Show the targets
	@grep -hE '^[a-z0-9 -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 44

$(COLLECTION):
	mkdir -p $(@D) && ln -sfn ../../.. $@

.venv/run.stamp: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with make PYTHON=…" if sys.version_info < (3, 11) else 0)'
	[ -x $(VENV)/pip ] || $(PYTHON) -m venv --clear .venv
	$(VENV)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	touch $@

.venv/test.stamp: tests/requirements.txt .venv/run.stamp
	$(VENV)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.txt
	touch $@

# SOURCE=release: take builds that somebody else has made, and compile nothing.
BUILDS = $(if $(SOURCE),-e runsc_build_source='$(SOURCE)' -e ggen_build_source='$(SOURCE)' \
  -e gvisor_release_url='$(RELEASE_URL)' -e gvisor_release_sha256='$(RELEASE_SHA256)')
SITE   = $(VENV)/ansible-playbook $(BECOME) site.yml $(BUILDS)

try: .venv/run.stamp $(COLLECTION) ## Run the example in gVisor: no root, no containerd, nothing outside of checkout and cache
	home="$${XDG_CACHE_HOME:-$$HOME/.cache}/ggen.gvisor/ansible"; \
	  ANSIBLE_HOME="$$home" ANSIBLE_REMOTE_TEMP="$$home/tmp" $(VENV)/ansible-playbook playbooks/try.yml $(BUILDS)

site: .venv/run.stamp $(COLLECTION) ## Build, provision and run on this machine
	$(SITE)

check: .venv/run.stamp $(COLLECTION) ## Show what `make site` would change
	$(SITE) --check --diff

release: .venv/run.stamp $(COLLECTION) ## Write dist/release: what `make site SOURCE=release` takes instead of compiling
	$(VENV)/ansible-playbook $(BECOME) playbooks/release.yml

install-command: .venv/run.stamp $(COLLECTION) ## Install ggen-gvisor with its manual page and completion below PREFIX=/usr/local
	$(SUDO) env PYTHONPATH=.collections $(VENV)/python -m ansible_collections.ggen.gvisor.plugins.plugin_utils._command.install $(PREFIX)

test: .venv/test.stamp $(COLLECTION) ## Everything that CI runs
	tests/run

lint sanity unit integration e2e lab molecule newest soak faults: .venv/test.stamp $(COLLECTION) ## One part of the tests
	tests/run $@

.venv/bench.stamp: tests/bench/requirements.txt .venv/test.stamp
	$(VENV)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/bench/requirements.txt
	touch $@

bench: .venv/bench.stamp $(COLLECTION) ## Every comparison with what one would use instead; writes docs/bench.*
	tests/run $@

requirements: .venv/test.stamp ## Compile the pinned, hashed requirements from the .in files
	uv=$$PWD/$(VENV)/uv; for set in .=3.11 tests=3.11 tests/bench=3.11 tests/docs=3.11 tests/core-2.20=3.12 tests/newest=3.12; do (cd $${set%=*} && \
	  $$uv pip compile --quiet --universal --generate-hashes --python-version $${set#*=} \
	  --no-emit-find-links --no-emit-index-url --custom-compile-command "make requirements" \
	  requirements.in --output-file requirements.txt) || exit 1; done

docs: .venv/run.stamp ## Write anew what documents list: variables, content, decisions
	$(VENV)/python tests/docs/roles.py
	$(VENV)/python tests/docs/pages.py

.venv/docs.stamp: tests/docs/requirements.txt .venv/test.stamp
	$(VENV)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/docs/requirements.txt
	touch $@

docs-site: .venv/docs.stamp $(COLLECTION) ## All documentation as a site, in .artifacts/docs-site
	tests/docs/site

dist: .venv/run.stamp $(COLLECTION) ## Build the Galaxy artifact
	$(VENV)/ansible-galaxy collection build --force --output-path dist

lab-up lab-down: .venv/run.stamp ## Start or stop the test hosts
	$(VENV)/python tests/lab/lab.py $(@:lab-%=%)

vm-up vm-down: .venv/run.stamp ## Start or remove a virtual machine like Colima's
	$(VENV)/python tests/lab/vm.py $(@:vm-%=%)

test-vm: .venv/test.stamp $(COLLECTION) ## The whole job in that machine; writes docs/vm-report.md
	tests/run vm

clean: ## Remove what builds and tests left in the checkout (not the cache)
	rm -rf .artifacts .collections .venv bin dist reports
