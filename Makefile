# The two commands: `make chat` and `make test`. Everything else is detail.
BUILD := build/release
export CMAKE_GENERATOR ?= Ninja

.PHONY: chat test build configure deps test-debug test-tsan test-clients clean
chat: configure
	@cmake --build --preset release --target lutra
	@$(BUILD)/cli/lutra chat $(ARGS)

test: build
	@ctest --preset release

build: configure
	@cmake --build --preset release

configure: deps
	@cmake --preset release >/dev/null

deps:
	@sh third_party/install_deps.sh

# Real clients (npm packages, fetched into tests/clients/node_modules) against the server. Needs Node 20 or newer.
test-clients: configure
	@cmake --build --preset release --target lutra
	@cd tests/clients && npm ci --no-audit --no-fund --loglevel=error
	@node tests/clients/run.mjs $(BUILD)/cli/lutra

test-debug test-tsan: test-%: deps
	cmake --preset $* >/dev/null
	cmake --build --preset $*
	ctest --preset $*

clean:
	rm -rf build
