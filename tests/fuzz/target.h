// One thing that is decoded from outside or from disk, as a fuzzer sees it: bytes go in, nothing
// may break.
//
// A target says how its seeds are written in the corpus (as text that people can read and diff),
// makes inputs of them, and takes any bytes. It aborts, or a sanitizer does, if what it is handed
// breaks a promise. Single-threaded.
#ifndef FLUX_TESTS_FUZZ_TARGET_H_
#define FLUX_TESTS_FUZZ_TARGET_H_

#include <google/protobuf/text_format.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/json_value.h"

namespace flux::fuzz {

struct Target {
  std::string name;  // the folder of its seeds
  // An input from a file of the corpus.
  std::function<std::string(std::string_view file)> seed;
  std::function<void(std::string_view input)> run;
  // Words that stand for something where they occur.
  std::vector<std::string> words;
};

// All there are; and those of store_targets.cc and service_targets.cc.
std::vector<Target> Targets();
std::vector<Target> StoreTargets();
std::vector<Target> ServiceTargets();

// Says what is wrong and aborts.
void Require(bool holds, const char* what);

// An input that is protobuf text in the corpus.
template <typename Message>
std::string Serialised(std::string_view file) {
  Message message;
  Require(google::protobuf::TextFormat::ParseFromString(std::string(file), &message),
          "a seed of the corpus is protobuf text");
  return engine::SerializeDeterministic(message);
}
// A file of the corpus as it is, less the line feed that editors end it with.
std::string AsItIs(std::string_view file);

}  // namespace flux::fuzz

#endif  // FLUX_TESTS_FUZZ_TARGET_H_
