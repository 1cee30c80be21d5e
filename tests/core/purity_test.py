#!/usr/bin/env python3
"""The core is pure: nothing in its sources or its archive reaches a clock, a thread, a lock, a file, a log or chance.

Usage: purity_test.py SOURCE_DIRECTORY ARCHIVE NM
"""
import pathlib
import re
import subprocess
import sys

BANNED_INCLUDES = [
    r"<chrono>", r"<thread>", r"<mutex>", r"<shared_mutex>", r"<condition_variable>", r"<future>", r"<random>",
    r"<iostream>", r"<fstream>", r"<filesystem>", r"<cstdio>", r"<stdio\.h>", r"<ctime>", r"<time\.h>", r"<unistd\.h>",
    r"<pthread\.h>", r"<sys/", r"<unordered_map>", r"<unordered_set>", r"<cmath>",
    r"[<\"]spdlog/", r"[<\"]grpc", r"[<\"]rocksdb/", r"[<\"]absl/time/", r"[<\"]absl/random/",
    r"[<\"]absl/synchronization/", r"[<\"]absl/base/internal/", r"\"store/", r"\"client/", r"\"worker/",
    r"\"engine/(?!core/)", r"\.grpc\.pb\.h",
]
BANNED_WORDS = {
    r"\b(float|double)\b": "floating point",
    r"\bthread_local\b": "thread-local state",
    r"\bmutable\b": "mutable members",
    r"\b(rand|srand|random_device|mt19937\w*)\b": "randomness",
    r"\babsl::(Now|GetCurrentTimeNanos)\b": "a clock",
    r"\b(try|throw)\b\s*[({;\w]": "exceptions",
    r"^\s*static\s+(?!constexpr|const\b|inline|void|bool|std::|Value|int|absl|constexpr)\w[\w:<>]*\s+\w+\s*(=|;|\{)":
        "static mutable state",
}
# Hash containers may be looked up, never walked: their order is not the same in every process.
HASH_DECLARATION = re.compile(r"flat_hash_(?:map|set)<.*>\s+(\w+)_?;")
# What a symbol may not be, in the names nm gives; imported or defined.
BANNED_SYMBOLS = re.compile(
    r"^(clock_gettime|gettimeofday|time|nanosleep|usleep|sleep|pthread_mutex_lock|pthread_create|pthread_cond_\w+|rand|srand"
    r"|random|getrandom|getentropy|arc4random|fopen|fopen64|open|open64|read|write|close|socket|connect|printf|fprintf|vprintf"
    r"|vfprintf|puts|fputs|putchar|fwrite|fflush|getenv|secure_getenv|syscall|getpid)(@.*)?$"
    r"|^std::(cout|cerr|clog|cin)\b|^std::random_device|^std::(this_thread|thread|mutex)|^std::chrono::"
    r"|^std::basic_(ofstream|ifstream|fstream)|^absl::\w*::?(Now|Mutex|SleepFor)|^spdlog|^grpc|^rocksdb")


def strip_comments(text):
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.S)
    return re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', text)


def scan_sources(directory):
    faults = []
    files = sorted(p for p in directory.iterdir() if p.suffix in (".h", ".cc"))
    if len(files) < 10:
        faults.append(f"{directory}: only {len(files)} sources found, is the path right?")
    for path in files:
        raw = path.read_text()
        for number, line in enumerate(raw.splitlines(), 1):
            if line.startswith("#include"):
                for banned in BANNED_INCLUDES:
                    if re.search(banned, line):
                        faults.append(f"{path.name}:{number}: {line.strip()} is banned in engine/core")
        code = strip_comments(raw)
        for number, line in enumerate(code.splitlines(), 1):
            for banned, what in BANNED_WORDS.items():
                if re.search(banned, line) and not line.startswith("#include"):
                    faults.append(f"{path.name}:{number}: {what} is banned in engine/core: {line.strip()}")
        for name in HASH_DECLARATION.findall(code):
            name = name.rstrip("_")
            if re.search(rf"for\s*\([^;)]*:\s*{name}_?\)|\b{name}_?\.(begin|end)\(\)", code):
                walked = re.search(rf"for\s*\([^;)]*:\s*{name}_?\)|\b{name}_?\.begin\(\)", code)
                if walked:
                    faults.append(f"{path.name}: walks the hash container {name}")
    return faults


def scan_archive(archive, nm):
    out = subprocess.run([nm, "-uC", archive], check=True, capture_output=True, text=True).stdout
    symbols = {line.split(maxsplit=1)[1] for line in out.splitlines() if line.strip().startswith("U ")}
    if len(symbols) < 50:
        return [f"{archive}: only {len(symbols)} imported symbols found, is it the right file?"]
    return [f"{archive}: imports {s}, which is banned in engine/core" for s in sorted(symbols) if BANNED_SYMBOLS.search(s)]


def self_test():
    """A check that cannot fail is none."""
    for symbol in ("clock_gettime", "getrandom@GLIBC_2.25", "std::cout", "pthread_mutex_lock", "printf"):
        assert BANNED_SYMBOLS.search(symbol), symbol
    for symbol in ("snprintf", "memcpy", "flux::engine::internal::Machine::Close(int)", "operator new(unsigned long)"):
        assert not BANNED_SYMBOLS.search(symbol), symbol
    for line in ("#include <chrono>", '#include "store/store.h"', '#include "engine/shard/batch.h"'):
        assert any(re.search(b, line) for b in BANNED_INCLUDES), line
    assert not any(re.search(b, '#include "engine/core/core.h"') for b in BANNED_INCLUDES)
    assert any(re.search(b, "  double x = 1;") for b in BANNED_WORDS)


def main():
    self_test()
    faults = scan_sources(pathlib.Path(sys.argv[1])) + scan_archive(sys.argv[2], sys.argv[3])
    print("\n".join(faults) or "engine/core is pure")
    sys.exit(1 if faults else 0)


main()
