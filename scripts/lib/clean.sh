# shellcheck shell=bash
# What a broker is started with by every script here. To be sourced.

# Variables of these scripts are no settings of the broker, which refuses what it does not know.
# Unused in scripts that start none.
# shellcheck disable=SC2034
MILLRACE_CLEAN=(env -u MILLRACE_BIN -u MILLRACE_CACHE -u MILLRACE_FAULTFS)
