# Each target installs what it lacks (on Debian and Ubuntu, through apt) and says so.
.PHONY: help demo test check bench fuzz

help:
	@echo 'make demo    connect an MQTT client with a key that never leaves its token'
	@echo 'make test    run all tests'
	@echo 'make check   formatting, lints, documentation, what the client depends on'
	@echo 'make bench   ours beside p11-kit and the least that is possible, in one run'
	@echo 'make fuzz    run each fuzz target for a minute (FUZZ_SECONDS=60), on nightly'

demo:
	@examples/demo/run

test:
	@scripts/test

check:
	@scripts/check

bench:
	@scripts/bench

fuzz:
	@scripts/fuzz
