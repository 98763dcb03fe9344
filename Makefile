# Everything sets itself up: Debian packages that are missing (see tools/packages) and a virtual environment in .venv.
# `make help` lists the targets.

PREFIX = /usr/local
CNI_BIN_DIR = /opt/cni/bin
DESTDIR =
export PREFIX CNI_BIN_DIR DESTDIR PYTHON COURIER FORCE

# What is needed at run time, for the demo, for the tests, and for the rest of the tests besides.
RUN_PACKAGES = python3 nftables
PACKAGES = $(RUN_PACKAGES) iproute2 iputils-ping
TEST_PACKAGES = ca-certificates containernetworking-plugins fonts-dejavu-core gcc iptables jq libc6-dev procps radvd tcpdump
REST_PACKAGES = bird2 busybox-static chromium-headless-shell clang containerd debian-archive-keyring etcd-server fish \
	frr mandoc mmdebstrap musl-tools podman python3-venv qemu-user runc tayga unbound user-mode-linux valgrind zsh
KERNEL_PACKAGES = bison busybox-static flex gcc libc6-dev make xz-utils
# What Kubernetes' own tests call in their pods.
CONFORMANCE_PACKAGES = bind9-dnsutils curl netcat-openbsd wget
BENCH_PACKAGES = bird2 containernetworking-plugins etcd-server iptables musl-tools netavark
# make bench PEER_BIN=<folder>: another build of the reference plugins.
PEER_BIN = /usr/lib/cni

RUN = .venv/bin/python
# Four at a time, on two processors: much of it waits for kernels and runtimes. What shares a heavy thing names it with
# @pytest.mark.xdist_group.
# Each of the four reads all modules: kept byte code, also where the caller's environment says not to keep it, makes that
# three times faster.
PYTEST = tools/sandbox env -u PYTHONDONTWRITEBYTECODE PATH="$(CURDIR)/.tools/bin:$$PATH" \
	$(RUN) -m pytest -n 4 --dist loadgroup
# What takes long, or needs much: all that make test leaves out.
REST = (runtimes or uml or bare or courier or slow) and not crossed

.NOTPARALLEL:
.PHONY: help demo test test-all test-rest test-kubernetes test-wireguard conformance check bench lint type courier
.PHONY: wheels dist deb docs image install uninstall clean
.PHONY: root setup setup-install setup-test setup-rest setup-bench

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: root setup ## two containers on a dual-stack network, explained step by step
	@tools/sandbox $(RUN) tools/demo

test: ARGS = --cov -m "not ($(REST)) and not crossed and not kubernetes and not wireguard"
test: root setup-test ## what every change must pass: lint, types, layers, units, namespaces, executables; 5 minutes
	$(PYTEST) $(ARGS)
	@echo "make test-all has more: container runtimes, user-mode kernels, bare machines (Debian 12 and 13), the courier, the slow rest."

test-all: test test-rest ## everything

test-rest: ARGS = -m "$(REST)"
test-rest: root setup-rest ## what make test leaves out; ARGS="-k gateway": a part of everything
	$(PYTEST) $(ARGS)

test-kubernetes: root setup-rest ## with a real kubelet and API server of Kubernetes, which it builds once
	@tools/kubernetes
	$(PYTEST) -m kubernetes $(ARGS)

test-wireguard: root setup-test ## the encrypted carrier, in a user-mode kernel that has it and that it builds once
	@tools/packages $(KERNEL_PACKAGES)
	@tools/uml-kernel
	$(PYTEST) -m wireguard $(ARGS)

conformance: ARGS =
conformance: root setup-rest ## Kubernetes' own network tests, into docs/benchmarks/kubernetes; it builds them once
	@tools/packages $(CONFORMANCE_PACKAGES)
	@tools/kubernetes tests
	tools/sandbox env PATH="$(CURDIR)/.tools/bin:$$PATH" $(RUN) -m tests.conformance $(ARGS)

check: test-all ## the same as test-all; exactly what CI runs

bench: ARGS =
bench: root setup-bench ## side by side with the reference plugins, into docs/benchmarks; ARGS=--quick for a first look
	tools/sandbox $(RUN) -m tests.bench --peer $(PEER_BIN) $(ARGS)

lint: setup-test ## flake8 alone
	$(RUN) -m flake8 . bin/* tools/manual tools/needs tools/pictures tools/requirements

type: setup-test ## mypy --strict alone
	$(RUN) -m mypy

courier: setup ## couriers for six processors, into build/courier/<processor>/
	@tools/venv courier
	@tools/cross build/courier

wheels: courier ## the source, the pure wheel and one for each of six processors, with its courier, into dist/
	@tools/wheels dist build/courier

dist: courier ## cni-v6ctl as one file for hosts without pip, with the couriers of six processors, into dist/
	@tools/dist dist build/courier

deb: setup-install ## the Debian package, with man pages, completion and systemd units, into dist/
	@tools/deb dist

image: IMAGE = cni-v6
image: ## the images of deploy/kubernetes for this processor, with docker or podman; IMAGE=REGISTRY/cni-v6:TAG
	@tools/image $(IMAGE)

docs: ## the documentation as a site to search, into build/site/
	@tools/venv
	@tools/venv docs
	@tools/docs build/site
	@echo "Open build/site/index.html, or:  $(RUN) -m http.server --bind ::1 --directory build/site"

install: setup-install ## into PREFIX=/usr/local CNI_BIN_DIR=/opt/cni/bin [DESTDIR=] [COURIER=no|need]
	@tools/install

uninstall: ## take away exactly what install put there, the engine and the tables; FORCE=yes: beside containers too
	@tools/install --remove

clean: ## back to a fresh checkout
	rm -rf .venv .tools .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

root:
	@[ "$$(id -u)" = 0 ] || { echo "This needs root, to make network namespaces. Without: .venv/bin/python -m pytest tests/unit" >&2; exit 1; }

setup-install:
	@tools/packages $(if $(DESTDIR),python3,$(RUN_PACKAGES))
	@tools/venv

setup:
	@tools/packages $(PACKAGES)
	@tools/venv

setup-test: setup
	@tools/packages $(TEST_PACKAGES)
	@tools/venv test dev

setup-rest: setup-test
	@tools/packages $(REST_PACKAGES)
	@tools/venv test dev courier docs
	@tools/cnitool
	@tools/promtool

setup-bench: setup
	@tools/packages $(BENCH_PACKAGES)
	@tools/venv test bench
	@tools/reference
