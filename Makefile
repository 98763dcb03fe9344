# Everything sets itself up: Debian packages that are missing (see tools/packages) and a virtual environment in .venv.
# `make help` lists the targets.

PREFIX = /usr/local
CNI_BIN_DIR = /opt/cni/bin
DESTDIR =
export PREFIX CNI_BIN_DIR DESTDIR PYTHON COURIER

# What the demo needs, then what the tests and the benchmark need besides. python3: the executables' first line asks for it.
PACKAGES = python3 iproute2 iputils-ping
TEST_PACKAGES = busybox-static ca-certificates clang containerd containernetworking-plugins gcc iptables libc6-dev \
	musl-tools nftables podman procps qemu-user radvd runc tcpdump user-mode-linux valgrind
BENCH_PACKAGES = containernetworking-plugins iptables musl-tools netavark
# make bench PEER_BIN=<folder>: another build of the reference plugins.
PEER_BIN = /usr/lib/cni

RUN = .venv/bin/python
# Three at a time, on two processors: much of it waits for kernels and runtimes. What shares a heavy thing names it with
# @pytest.mark.xdist_group.
PYTEST = tools/sandbox env PATH="$(CURDIR)/.tools/bin:$$PATH" $(RUN) -m pytest -n 3 --dist loadgroup
# make test ARGS="-k gateway": a part, without the coverage gate.
ARGS = --cov

.PHONY: help demo test test-courier check bench lint type courier install uninstall clean root setup setup-test setup-bench

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: root setup ## two containers on a dual-stack network, explained step by step
	@tools/sandbox $(RUN) tools/demo

test: root setup-test ## everything: lint, types, layers, units, namespaces, executables, runtimes
	$(PYTEST) -m "not courier" $(ARGS)

test-courier: ARGS =
test-courier: root setup-test ## what is proved in namespaces through the Python executables, through the courier
	$(PYTEST) -m courier $(ARGS)

check: test test-courier ## both; exactly what CI runs

bench: ARGS =
bench: root setup-bench ## side by side with the reference plugins, into docs/benchmarks; ARGS=--quick for a first look
	tools/sandbox $(RUN) -m tests.bench --peer $(PEER_BIN) $(ARGS)

lint: setup-test ## flake8 alone
	$(RUN) -m flake8 . bin/* tools/requirements

type: setup-test ## mypy --strict alone
	$(RUN) -m mypy

courier: setup ## couriers for six processors, into build/courier/<processor>/
	@tools/venv courier
	@tools/cross build/courier

install: setup ## into PREFIX=/usr/local CNI_BIN_DIR=/opt/cni/bin [DESTDIR=] [COURIER=no|need]
	@tools/install

uninstall: ## take away exactly what install put there
	@tools/install --remove

clean: ## back to a fresh checkout
	rm -rf .venv .tools .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

root:
	@[ "$$(id -u)" = 0 ] || { echo "This needs root, to make network namespaces. Without: .venv/bin/python -m pytest tests/unit" >&2; exit 1; }

setup:
	@tools/packages $(PACKAGES)
	@tools/venv

setup-test: setup
	@tools/packages $(TEST_PACKAGES)
	@tools/venv test dev courier
	@tools/cnitool

setup-bench: setup
	@tools/packages $(BENCH_PACKAGES)
	@tools/venv bench
