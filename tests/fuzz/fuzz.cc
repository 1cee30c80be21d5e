// Feeds a target its seeds and what mutations make of them.
//
//   fuzz TARGET [--runs N] [--seed S] [--seconds T] [--corpus DIR] [FILE…]
//
// With files it runs just those, as they are: how a crash is repeated. Each input is written to
// crash-TARGET before it runs and removed at the end, so that a crash leaves it behind. Built with
// clang and -fsanitize=fuzzer the targets serve libFuzzer instead (FLUX_FUZZ_TARGET names one).
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/target.h"

namespace flux::fuzz {
namespace {

constexpr size_t kInputBytesMax = 16 * 1024;
constexpr uint64_t kLongFactor = 100;

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The file that says what was being run when it crashed. Kept open: a file that is emptied and
// closed for each input is written to the disk each time.
class LastInput {
 public:
  explicit LastInput(std::string path)
      : path_(std::move(path)), file_(::open(path_.c_str(), O_CREAT | O_RDWR | O_TRUNC, 0644)) {
    Require(file_ >= 0, "the file of the last input can be made");
  }
  ~LastInput() {
    ::close(file_);
    std::filesystem::remove(path_);
  }
  LastInput(const LastInput&) = delete;
  LastInput& operator=(const LastInput&) = delete;
  void Set(const std::string& input) {
    Require(::pwrite(file_, input.data(), input.size(), 0) == static_cast<ssize_t>(input.size()) &&
                ::ftruncate(file_, static_cast<off_t>(input.size())) == 0,
            "the last input can be written");
  }

 private:
  const std::string path_;
  const int file_;
};

class Mutator {
 public:
  Mutator(const Target& target, std::vector<std::string> corpus, uint64_t seed)
      : target_(target), corpus_(std::move(corpus)), random_(seed) {}

  std::string Next() {
    std::string input = Pick(corpus_);
    for (uint64_t edits = 1 + Below(4); edits > 0; --edits) Edit(&input);
    if (input.size() > kInputBytesMax) input.resize(kInputBytesMax);
    return input;
  }

 private:
  uint64_t Below(uint64_t bound) { return bound == 0 ? 0 : random_() % bound; }
  const std::string& Pick(const std::vector<std::string>& from) { return from[Below(from.size())]; }

  void Edit(std::string* input) {
    static constexpr uint8_t kBytes[] = {0,   1,   0x7f, 0x80, 0xff, '"',
                                         '{', '[', '\n', ' ',  '-',  '9'};
    const size_t at = Below(input->size() + 1);
    switch (Below(target_.words.empty() ? 7 : 8)) {
      case 0:
        if (at < input->size()) (*input)[at] = static_cast<char>((*input)[at] ^ (1 << Below(8)));
        return;
      case 1:
        if (at < input->size()) (*input)[at] = static_cast<char>(kBytes[Below(std::size(kBytes))]);
        return;
      case 2:
        input->insert(at, 1, static_cast<char>(random_()));
        return;
      case 3:
        input->erase(at, 1 + Below(8));
        return;
      case 4: {  // a stretch again, elsewhere
        const std::string stretch = input->substr(at, 1 + Below(64));
        input->insert(Below(input->size() + 1), stretch);
        return;
      }
      case 5: {  // another seed's end
        const std::string& other = Pick(corpus_);
        input->resize(at);
        input->append(other, std::min(other.size(), static_cast<size_t>(Below(other.size() + 1))),
                      std::string::npos);
        return;
      }
      case 6:
        input->resize(at);
        return;
      default:
        input->insert(at, Pick(target_.words));
        return;
    }
  }

  const Target& target_;
  const std::vector<std::string> corpus_;
  std::mt19937_64 random_;
};

const Target* Find(const std::vector<Target>& targets, const std::string& name) {
  for (const Target& target : targets) {
    if (target.name == name) return &target;
  }
  return nullptr;
}

int Main(int argc, char** argv) {
  CLI::App app{"Feeds one decoder of Flux its seeds and what mutations make of them."};
  std::string name, folder = FLUX_FUZZ_CORPUS;
  uint64_t runs = 10'000, seed = 1;
  double seconds = 0;
  std::vector<std::string> files;
  app.add_option("target", name, "What is fuzzed: a folder of the corpus")->required();
  app.add_option("--runs", runs, "Inputs to make; a hundred times as many if FLUX_LONG is set")
      ->capture_default_str();
  app.add_option("--seconds", seconds, "Stops after so long, whatever --runs says; 0: never");
  app.add_option("--seed", seed, "The same seed makes the same inputs")->capture_default_str();
  app.add_option("--corpus", folder, "Folder of the seeds")->capture_default_str();
  app.add_option("files", files, "Runs these inputs as they are, and nothing else");
  CLI11_PARSE(app, argc, argv);
  if (std::getenv("FLUX_LONG") != nullptr) runs *= kLongFactor;
  const std::vector<Target> targets = Targets();
  const Target* target = Find(targets, name);
  if (target == nullptr) {
    std::cerr << "no target " << name << "; there are:";
    for (const Target& each : targets) std::cerr << " " << each.name;
    std::cerr << "\n";
    return 2;
  }
  for (const std::string& file : files) target->run(ReadFile(file));
  if (!files.empty()) return 0;

  std::vector<std::string> corpus;
  const std::filesystem::path seeds = std::filesystem::path(folder) / name;
  for (const auto& entry : std::filesystem::directory_iterator(seeds)) {
    corpus.push_back(target->seed(ReadFile(entry.path())));
    target->run(corpus.back());
  }
  if (corpus.empty()) {
    std::cerr << "no seeds in " << seeds << "\n";
    return 2;
  }
  const size_t given = corpus.size();
  Mutator mutator(*target, std::move(corpus), seed);
  LastInput last("crash-" + name);
  const auto began = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  };
  uint64_t run = 0;
  for (; run < runs && (seconds == 0 || elapsed() < seconds); ++run) {
    const std::string input = mutator.Next();
    last.Set(input);
    target->run(input);
  }
  std::cout << name << ": " << given << " seeds, " << run << " inputs, "
            << static_cast<uint64_t>(static_cast<double>(run) / std::max(elapsed(), 1e-9))
            << " a second\n";
  return 0;
}

}  // namespace
}  // namespace flux::fuzz

#ifdef FLUX_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<flux::fuzz::Target> targets = flux::fuzz::Targets();
  static const flux::fuzz::Target* target = [] {
    const char* name = std::getenv("FLUX_FUZZ_TARGET");
    const flux::fuzz::Target* found = flux::fuzz::Find(targets, name == nullptr ? "" : name);
    flux::fuzz::Require(found != nullptr, "FLUX_FUZZ_TARGET names a target");
    return found;
  }();
  target->run(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
#else
int main(int argc, char** argv) { return flux::fuzz::Main(argc, argv); }
#endif
