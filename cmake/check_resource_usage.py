"""What each CUDA kernel takes of the device, from what ``nvcc -Xptxas=-v`` printed: fails if any of them spills.

Usage: python cmake/check_resource_usage.py BUILD_LOG
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_ENTRY = re.compile(r"Compiling entry function '(?P<name>[^']+)' for '(?P<target>[^']+)'")
_FUNCTION = re.compile(r"Function properties for (?P<name>\S+)")
_PROPERTIES = re.compile(
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
)
_REGISTERS = re.compile(r"Used (?P<registers>\d+) registers")
_SHARED = re.compile(r"(?P<shared>\d+) bytes smem")


@dataclass
class Kernel:
    """One kernel for one kind of device: its registers (a thread), and bytes of all else (shared memory: a block)."""

    name: str
    target: str
    registers: int | None = None
    shared: int = 0
    stack: int | None = None
    spills: int | None = None  # with those of functions that it calls


def parse(log: str) -> list[Kernel]:
    """The kernels that a build's log tells of, in its order. What is not there stays None."""
    kernels: list[Kernel] = []
    function = ""
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            kernels.append(Kernel(entry["name"], entry["target"]))
        elif found := _FUNCTION.search(line):
            function = found["name"]
        elif not kernels:
            continue
        elif properties := _PROPERTIES.search(line):
            kernel = kernels[-1]
            if function == kernel.name:
                kernel.stack = int(properties["stack"])
                kernel.spills = 0
            # What was not inlined follows the kernel.
            if kernel.spills is not None:
                kernel.spills += int(properties["stores"]) + int(properties["loads"])
        elif (registers := _REGISTERS.search(line)) and kernels[-1].registers is None:
            kernels[-1].registers = int(registers["registers"])
            shared = _SHARED.search(line)
            kernels[-1].shared = int(shared["shared"]) if shared else 0
    return kernels


def readable(names: list[str]) -> list[str]:
    """C++ names as they were written, without arguments, where binutils are there."""
    if not names or shutil.which("c++filt") is None:
        return names
    text = subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [line.replace("gpgan::cuda::", "").replace("(anonymous namespace)::", "") for line in text.splitlines()]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    kernels = parse(Path(arguments[0]).read_text(encoding="utf-8", errors="replace"))
    if not kernels:
        print("no kernel in the log: was it built with -Xptxas=-v, and from the start?", file=sys.stderr)
        return 1
    print(f"{'registers':>9} {'shared':>7} {'stack':>6} {'spills':>6}  kernel")
    bad = []
    for kernel, name in zip(kernels, readable([kernel.name for kernel in kernels]), strict=True):
        numbers = [kernel.registers, kernel.shared, kernel.stack, kernel.spills]
        shown = ["?" if number is None else str(number) for number in numbers]
        print("{:>9} {:>7} {:>6} {:>6}  {} ({})".format(*shown, name, kernel.target))
        if None in numbers:
            bad.append(f"{name} ({kernel.target}): the log does not say everything")
        elif kernel.spills:
            bad.append(f"{name} ({kernel.target}): {kernel.spills} bytes of spills")
    print(f"{len(kernels)} kernels")
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
