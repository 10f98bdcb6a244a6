# The two commands: `make chat` and `make test`. Everything else is detail.
BUILD := build/release
export CMAKE_GENERATOR ?= Ninja

.PHONY: chat test build configure deps test-debug test-tsan clean
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

test-debug test-tsan: test-%: deps
	cmake --preset $* >/dev/null
	cmake --build --preset $*
	ctest --preset $*

clean:
	rm -rf build
