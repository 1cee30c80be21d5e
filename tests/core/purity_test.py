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
}
# A variable, in a line without its template arguments: no parenthesis comes before what ends or
# initialises it, as one does in a function.
STATIC_VARIABLE = re.compile(
    r"^\s*(?:inline\s+)?static\s+(?!(?:inline\s+)?(?:constexpr|const)\b)[^()=;{]*\b\w+\s*(?:\[[^\]]*\])*\s*(?:=|;|\{)")
# At the beginning of a line, where namespaces have their own.
GLOBAL_VARIABLE = re.compile(
    r"^(?!(?:inline\s+)?(?:constexpr|const)\b|using\b|typedef\b|namespace\b|class\b|struct\b|enum\b|union\b|template\b"
    r"|friend\b|return\b|extern\b|static\b|public\b|private\b|protected\b|case\b|default\b)"
    r"(?:inline\s+)?[A-Za-z_][\w:]*[\s&*]+\w+\s*(?:\[[^\]]*\])*\s*(?:=|;|\{)")
# Hash containers may be looked up, never walked: their order is not the same in every process.
HASH_TYPE = r"(?:absl::)?flat_hash_(?:map|set)\s*<[^;{}()]*>"
HASH_ALIAS = re.compile(rf"\busing\s+(\w+)\s*=\s*{HASH_TYPE}\s*;")
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


def strip_template_arguments(line):
    while True:
        shorter = re.sub(r"<[^<>]*>", "", line)
        if shorter == line:
            return line
        line = shorter


def hash_names(codes):
    """The names of all hash containers, wherever they are declared: a member may be walked in any file."""
    aliases = {name for code in codes for name in HASH_ALIAS.findall(code)}
    types = "|".join([HASH_TYPE] + [rf"\b{alias}\b" for alias in sorted(aliases)])
    declaration = re.compile(rf"(?:{types})\s*[&*]?\s*\b(\w+)\s*[;,)={{]")
    return {name for code in codes for name in declaration.findall(code)}


def walks(code, names):
    """Those of `names` that the code goes through in the container's own order."""
    if not names:
        return set()
    name = rf"({'|'.join(sorted(names))})"
    path = r"(?:[\w.()\[\]*]|->)*?"
    found = set()
    for pattern in (rf"\bfor\s*\([^;]*?[^:]:\s*\*?(?:{path}(?:\.|->))?{name}\)", rf"\b{name}(?:\.|->)c?begin\(\)",
                    rf"\bbegin\((?:{path}(?:\.|->))?{name}\)", rf"\babsl::c_\w+\(\s*(?:{path}(?:\.|->))?{name}\s*[,)]"):
        found.update(re.findall(pattern, code))
    return found


def scan_texts(texts):
    """The faults of sources, given as their names and texts."""
    faults = []
    codes = {name: strip_comments(text) for name, text in texts.items()}
    containers = hash_names(codes.values())
    for name, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith("#include"):
                for banned in BANNED_INCLUDES:
                    if re.search(banned, line):
                        faults.append(f"{name}:{number}: {line.strip()} is banned in engine/core")
        for number, line in enumerate(codes[name].splitlines(), 1):
            if line.startswith("#"):
                continue
            what = [what for banned, what in BANNED_WORDS.items() if re.search(banned, line)]
            bare = strip_template_arguments(line)
            if re.search(r"\boperator\b", bare) is None and (STATIC_VARIABLE.search(bare) or GLOBAL_VARIABLE.search(bare)):
                what.append("static mutable state")
            for each in what:
                faults.append(f"{name}:{number}: {each} is banned in engine/core: {line.strip()}")
        for container in sorted(walks(codes[name], containers)):
            faults.append(f"{name}: walks the hash container {container}")
    return faults


def scan_sources(directory):
    files = sorted(p for p in directory.iterdir() if p.suffix in (".h", ".cc"))
    if len(files) < 10:
        return [f"{directory}: only {len(files)} sources found, is the path right?"]
    return scan_texts({path.name: path.read_text() for path in files})


def scan_archive(archive, nm):
    out = subprocess.run([nm, "-uC", archive], check=True, capture_output=True, text=True).stdout
    symbols = {line.split(maxsplit=1)[1] for line in out.splitlines() if line.strip().startswith("U ")}
    if len(symbols) < 50:
        return [f"{archive}: only {len(symbols)} imported symbols found, is it the right file?"]
    return [f"{archive}: imports {s}, which is banned in engine/core" for s in sorted(symbols) if BANNED_SYMBOLS.search(s)]


PLANTED_INCLUDES = [
    "<chrono>", "<thread>", "<mutex>", "<shared_mutex>", "<condition_variable>", "<future>", "<random>", "<iostream>",
    "<fstream>", "<filesystem>", "<cstdio>", "<stdio.h>", "<ctime>", "<time.h>", "<unistd.h>", "<pthread.h>", "<sys/stat.h>",
    "<unordered_map>", "<unordered_set>", "<cmath>", "<spdlog/spdlog.h>", "<grpcpp/grpcpp.h>", "<rocksdb/db.h>",
    '"absl/time/clock.h"', '"absl/random/random.h"', '"absl/synchronization/mutex.h"', '"absl/base/internal/cycleclock.h"',
    '"store/store.h"', '"client/names.h"', '"worker/session.h"', '"engine/shard/batch.h"', '"flux/v1/admin.grpc.pb.h"',
]
PLANTED_LINES = {
    "floating point": ["  double x = 1;", "float Rate(int n);"],
    "thread-local state": ["  thread_local int depth;"],
    "mutable members": ["  mutable int asked_ = 0;"],
    "randomness": ["  return rand() % 6;", "  std::random_device device;", "  std::mt19937_64 generator;"],
    "a clock": ["  const auto now = absl::Now();"],
    "exceptions": ["  throw 1;", "  try {"],
    "static mutable state": [
        "static int counter = 0;", "  static uint64_t next;", "  static std::string cache;", "  static std::vector<int> seen{1};",
        "  static absl::flat_hash_map<std::string, std::vector<int>> by_name;", "  static inline int hits = 0;",
        "  static bool warned = false;", "  static Value last;", "  static char buffer[64];", "  static const_cast_t odd;",
        "  static std::function<void(int)> hook;", "int counter = 0;", "std::string last_error;", "inline int hits{0};",
        "Value* newest = nullptr;"],
}
CLEAN_LINES = [
    "  static constexpr int kMax = 3;", "  static const std::string kName = F();", "  static inline constexpr int kNone = 0;",
    "static std::string Text(const Value& value) {", "  static absl::StatusOr<Graph> Compile(const Definition& definition,",
    "  static int Compare(int a, int b = 0);", "  static bool operator==(const A& a, const A& b) = default;",
    "constexpr int kMax = 3;", "inline constexpr char kName[] = {};", "class Machine;", "struct Frame {", "enum class Phase {",
    "using Steps = std::vector<Step>;", "namespace flux::engine {", "int Count(const Frame& frame) {", "template <typename T>",
    "  int counter = 0;", "  return total;", "// int counter = 0;", "#include <string>",
]
HASH_HEADER = """
using Index = absl::flat_hash_map<std::string, int>;
struct State {
  absl::flat_hash_map<uint64_t, std::vector<int>>
      frames;
  absl::flat_hash_set<std::string> names_;
  Index index;
  std::vector<int> steps;
};
"""
WALKS = [
    "for (const auto& [number, frame] : state.frames) {", "for (auto& name : names_) {", "for (const auto& x : s_->index) {",
    "for (auto it = state.frames.begin(); it != end; ++it) {", "for (auto& x : machine.state().frames) {",
    "std::vector<int> all(s.index.cbegin(), s.index.cend());", "auto first = std::begin(state.names_);",
    "absl::c_copy(state.frames, out);", "void F(const absl::flat_hash_set<int>& local) { for (int x : local) {} }",
]
LOOKUPS = [
    "const auto found = state.frames.find(3);", "if (found == state.frames.end()) return;", "for (int step : state.steps) {",
    "names_.insert(name);", "for (const auto& name : names) {", "return index.size();", "x = y ? a : frames.at(3);", "for (int i = 0; i < names_.size(); ++i) {",
]
PLANTED_SYMBOLS = [
    "clock_gettime", "getrandom@GLIBC_2.25", "std::cout", "pthread_mutex_lock", "printf", "std::random_device::_M_getval()",
    "std::chrono::_V2::system_clock::now()", "absl::debian3::Now()", "spdlog::info", "getenv",
]
CLEAN_SYMBOLS = ["snprintf", "memcpy", "flux::engine::internal::Machine::Close(int)", "operator new(unsigned long)"]


def self_test():
    """A check that cannot fail is none: each rule finds what is planted for it, and lets its neighbours pass."""
    def faults_of(line):
        return scan_texts({"state.h": HASH_HEADER, "planted.cc": line + "\n"})

    for symbol in PLANTED_SYMBOLS:
        assert BANNED_SYMBOLS.search(symbol), symbol
    for symbol in CLEAN_SYMBOLS:
        assert not BANNED_SYMBOLS.search(symbol), symbol
    for banned in BANNED_INCLUDES:
        assert any(re.search(banned, include) for include in PLANTED_INCLUDES), f"nothing is planted for {banned}"
    for include in PLANTED_INCLUDES:
        assert faults_of(f"#include {include}"), include
    assert set(PLANTED_LINES) == set(BANNED_WORDS.values()) | {"static mutable state"}, "a rule has nothing planted"
    for what, lines in PLANTED_LINES.items():
        for line in lines:
            assert any(f": {what} is banned" in fault for fault in faults_of(line)), f"overlooked: {what}: {line}"
    for line in WALKS:
        assert any("walks the hash container" in fault for fault in faults_of(line)), f"overlooked: {line}"
    for line in CLEAN_LINES + LOOKUPS + ['#include "engine/core/core.h"']:
        assert not faults_of(line), faults_of(line)


def main():
    self_test()
    faults = scan_sources(pathlib.Path(sys.argv[1])) + scan_archive(sys.argv[2], sys.argv[3])
    print("\n".join(faults) or "engine/core is pure")
    sys.exit(1 if faults else 0)


main()
