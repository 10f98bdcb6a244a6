# The two commands: `make chat` and `make test`. Everything else is detail.
BUILD := build/release
export CMAKE_GENERATOR ?= Ninja

.PHONY: chat test build deps test-debug test-tsan clean
chat: build
	@$(BUILD)/cli/lutra chat $(ARGS)

test: build
	@ctest --preset release

build: deps
	@cmake --preset release $(if $(wildcard $(BUILD)/CMakeCache.txt),,--log-level=NOTICE) >/dev/null
	@cmake --build --preset release

deps:
	@sh third_party/install_deps.sh

test-debug test-tsan: test-%: deps
	cmake --preset $* >/dev/null
	cmake --build --preset $*
	ctest --preset $*

clean:
	rm -rf build
