# Each target installs what it lacks (on Debian and Ubuntu, through apt) and says so.
.PHONY: help demo test check cross-check audit package bench fuzz

help:
	@echo 'make demo         connect an MQTT client with a key that never leaves its token'
	@echo 'make test         run all tests'
	@echo 'make check        formatting, lints, documentation, imports, what the client depends on'
	@echo 'make bench        ours beside p11-kit and the least that is possible, in one run'
	@echo 'make fuzz         run each fuzz target for a minute (FUZZ_SECONDS=60)'
	@echo 'make audit        licences, versions and sources of what we depend on, known vulnerabilities'
	@echo 'make package      the packages of the four crates, each tested alone'
	@echo 'make cross-check  the client as a static program; the crates for aarch64, armv7 and i686'

demo:
	@examples/demo/run

test:
	@scripts/test

check:
	@scripts/check

cross-check:
	@scripts/cross-check

audit:
	@scripts/audit

package:
	@scripts/check-packages

bench:
	@scripts/bench

fuzz:
	@scripts/fuzz
