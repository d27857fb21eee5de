# The targets people use; the building itself is Meson's (meson.build).
#
#   make              build into build/ (programs: build/bin)
#   make test         the fast tests: unit and simulation
#   make check        all tests: packages, build, unit, sanitizers, fuzzers, cluster; last line "N passed, N failed"
#   make check-full   the same with large counts (FLOCKER_TEST_FULL=1)
#   make demo         move a PostgreSQL between three hosts, under writes; KEEP=1 leaves the cluster up
#   make bench        benchmarks; ONLY=a,b picks some
#   make fuzz         every fuzz target for a while (SECONDS=20 each; ONLY=http,codec picks some)
#   make coverage     lines and branches that unit tests and simulation cover, by room and file
#   make install      PREFIX=/usr/local DESTDIR=
#   make deb          a Debian package in build/deb; see docs/install.md
#   make managed-plugin   the folder that `docker plugin create` takes, in build/managed-plugin
#   make deps         installs the packages that are missing

PREFIX ?= /usr/local
DESTDIR ?=
SECONDS ?= 20
comma := ,
MESON_ARGS ?=

all: build/build.ninja
	@ninja -C build

build/build.ninja:
	@scripts/install-deps --for build
	@meson setup --prefix=$(PREFIX) $(MESON_ARGS) build

programs: build/build.ninja
	@ninja -C build programs

deps:
	@scripts/install-deps --for all

test:
	@scripts/install-deps --for test
	@scripts/check --fast

check:
	@scripts/install-deps --for check
	@scripts/check

check-full:
	@scripts/install-deps --for check
	@FLOCKER_TEST_FULL=1 scripts/check

demo:
	@scripts/install-deps --for demo
	@$(MAKE) --no-print-directory programs 1>&2
	@lab/demo $(if $(KEEP),--keep)

bench:
	@scripts/install-deps --for bench
	@$(MAKE) --no-print-directory all 1>&2
	@bench/run $(if $(ONLY),--only $(ONLY))

fuzz:
	@scripts/install-deps --for fuzz
	@scripts/fuzz $(SECONDS) $(subst $(comma), ,$(ONLY))

coverage:
	@scripts/install-deps --for coverage
	@scripts/coverage

install: all
	@meson configure --prefix=$(PREFIX) build
	@DESTDIR=$(DESTDIR) meson install -C build

deb:
	@scripts/install-deps --for deb
	@scripts/make-deb

managed-plugin:
	@scripts/make-managed-plugin

clean:
	@scripts/clean

.PHONY: all programs deps test check check-full demo bench fuzz coverage install deb managed-plugin clean
