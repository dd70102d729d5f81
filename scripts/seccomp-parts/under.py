"""Runs a command under a container's seccomp profile, as a container runtime would: `under.py PROFILE [--without NAME,...] -- COMMAND...`

The profile is in the format of Docker and Podman (defaultAction, syscalls with names, action, args). libseccomp makes the filter of it; names that
it does not know are passed over, as runtimes do. `--without` takes calls out of the profile first.
"""

import ctypes
import json
import os
import sys

ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
OPERATORS = {"SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}
EPERM = 1
UNKNOWN = -1


class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("datum_a", ctypes.c_uint64), ("datum_b", ctypes.c_uint64)]


def library():
    lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    lib.seccomp_init.restype, lib.seccomp_init.argtypes = ctypes.c_void_p, [ctypes.c_uint32]
    lib.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    lib.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison)]
    lib.seccomp_load.argtypes = [ctypes.c_void_p]
    return lib


def action(name, errno):
    return ACTIONS[name] | (errno if name == "SCMP_ACT_ERRNO" else 0)


def rules(profile, without=()):
    """(name, action, comparisons) of each call of a profile."""
    for entry in profile["syscalls"]:
        compared = [Comparison(a["index"], OPERATORS[a["op"]], a["value"], a.get("valueTwo", 0)) for a in entry.get("args", [])]
        told = action(entry["action"], entry.get("errnoRet", profile.get("defaultErrnoRet", EPERM)))
        for name in entry["names"]:
            if name not in without:
                yield name, told, compared


def load(profile, without=()):
    """From here on the profile holds for this process; the names that libseccomp does not know."""
    lib, unknown = library(), []
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet", EPERM))
    context = lib.seccomp_init(default)
    if not context:
        raise OSError("libseccomp makes no filter")
    for name, told, compared in rules(profile, without):
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number == UNKNOWN:
            unknown.append(name)
            continue
        # A negative number is a call of another architecture, which makes no rule here.
        failed = told != default and number >= 0 and lib.seccomp_rule_add_array(context, told, number, len(compared), (Comparison * len(compared))(*compared))
        if failed:
            raise OSError(-failed, f"libseccomp refuses the rule of {name}")
    if failed := lib.seccomp_load(context):
        raise OSError(-failed, "the system refuses the filter")
    return unknown


def main():
    path, *rest = sys.argv[1:]
    without = rest[rest.index("--without") + 1].split(",") if "--without" in rest[: rest.index("--")] else []
    with open(path, encoding="utf-8") as file:
        profile = json.load(file)
    command = rest[rest.index("--") + 1 :]
    load(profile, without)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
