# The two commands that do everything from a fresh machine: `make demo` and `make test`.

CARGO ?= cargo
XDG_RUNTIME_DIR ?= /tmp
export XDG_RUNTIME_DIR

.PHONY: build demo test test-cpu test-vulkan lint doc bench clean

## Builds target/release/foveate.
build:
	@tools/setup-llvm.sh
	$(CARGO) build --release --locked -p foveate

## Trains specs/demo/fashion.fov on the bundled images and writes a report.
demo: build
	target/release/foveate train specs/demo/fashion.fov --out out/demo

## All tests: those of the CPU, then the portable kernels on Vulkan.
test: test-cpu test-vulkan

test-cpu:
	@tools/setup-llvm.sh
	$(CARGO) test --release --locked --workspace

test-vulkan:
	@tools/setup-vulkan.sh
	$(CARGO) test --release --locked -p foveate-codegen -p foveate-tests --no-default-features \
		--features foveate-codegen/wgpu,foveate-tests/wgpu --test operations --test random_kernels --test vulkan

## Formatting, lints and documentation, warnings denied.
lint:
	@tools/setup-llvm.sh
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps

## Compile-time benchmarks, then both sides of everything against PyTorch: rewrites a part of docs/benchmarks.md. BENCH_ARGS go to bench/run.py.
bench: build
	@bench/setup.sh
	$(CARGO) bench --locked -p foveate-tests
	"$${FOVEATE_BENCH_ENV:-target/bench-venv}/bin/python" bench/run.py $(BENCH_ARGS)

clean:
	$(CARGO) clean
	rm -rf out
