// One thing that is decoded from outside or from disk, as a fuzzer sees it: bytes go in, nothing
// may break.
//
// A target says how its seeds are written in the corpus (as text that people can read and diff),
// makes inputs of them, and takes any bytes. It aborts, or a sanitizer does, if what it is handed
// breaks a promise. Single-threaded.
#ifndef FLUX_TESTS_FUZZ_TARGET_H_
#define FLUX_TESTS_FUZZ_TARGET_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace flux::fuzz {

struct Target {
  std::string name;  // the folder of its seeds
  // An input from a file of the corpus.
  std::function<std::string(std::string_view file)> seed;
  std::function<void(std::string_view input)> run;
  // Words that stand for something where they occur.
  std::vector<std::string> words;
};

std::vector<Target> Targets();

// Says what is wrong and aborts.
void Require(bool holds, const char* what);

}  // namespace flux::fuzz

#endif  // FLUX_TESTS_FUZZ_TARGET_H_
