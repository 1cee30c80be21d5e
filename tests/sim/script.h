// What simulated tasks answer: a pure function of the seed, the step and its inputs, known to the
// workers that answer and to the interpreter that says what must come of it.
#ifndef FLUX_TESTS_SIM_SCRIPT_H_
#define FLUX_TESTS_SIM_SCRIPT_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "flux/v1/definition.pb.h"
#include "flux/v1/payload.pb.h"

namespace flux::sim {

// What a value looks like, as far as the generator of graphs keeps track of it.
enum class Shape : uint8_t {
  kNumber,
  kBool,
  kArray,
  kObject,
  kText,
  kList,
  kOpaque,
  kNone,
  kPage  // of a map's items: {"items": […], "next": cursor}
};

// One task step's behaviour. Chances are in 1/1,000 of its inputs, not of its attempts.
struct TaskScript {
  Shape shape = Shape::kNumber;
  uint32_t fails = 0;     // ends with a failure that is not tried again
  uint32_t exhausts = 0;  // every attempt fails
  uint32_t skips = 0;
  uint32_t transient_max = 0;  // attempts that fail before its end
  uint32_t wide = 0;           // an array of dozens of items instead of a few
  uint32_t big = 0;            // a value of a few hundred bytes or more
  int64_t duration_ms_max = 5;
  uint32_t continues = 0;                    // goes on as the fragment
  bool counts = false;                       // its last input says how often it has gone on already
  const v1::Definition* fragment = nullptr;  // the program's; its tasks have scripts of their own
  bool labels = false;                       // it sets some of the execution's, and one of its own
};

using Scripts = std::map<std::string, TaskScript, std::less<>>;  // by step name

// How a task goes, attempt by attempt.
struct Answer {
  static constexpr uint32_t kAlways = UINT32_MAX;
  enum class End : uint8_t { kValue, kSkip, kFailure, kContinue };

  uint32_t failing_attempts = 0;  // so many fail with `transient` first
  v1::Failure transient;
  End end = End::kValue;
  v1::Payload value;
  v1::Failure failure;
  const v1::Definition* fragment = nullptr;  // the script's
  std::vector<v1::Payload> inputs;           // of the fragment
  int64_t duration_ms = 1;
};

// `path` is the step's ("codes[17].parse"), `inputs` the texts of its inputs with their pointers.
Answer AnswerOf(const TaskScript& script, uint64_t seed, std::string_view path,
                const std::vector<std::string>& inputs);

// What the task at a path sets of the execution's labels, whatever its inputs; an empty value takes
// a label away. And of its step's.
std::map<std::string, std::string> LabelsOf(const TaskScript& script, std::string_view path);
std::map<std::string, std::string> StepLabelsOf(const TaskScript& script, std::string_view path);

// The name of the step at a path: "parse" of "codes[17].parse".
std::string_view NameOf(std::string_view path);

v1::Payload Json(std::string_view text);
v1::Payload ListOf(const std::vector<v1::Payload>& items);

// A payload for people and for comparisons; equal payloads have equal texts.
std::string TextOf(const v1::Payload& payload);
std::string TextOf(const v1::Failure& failure);

// A literal of a shape.
v1::Payload LiteralOf(Shape shape, uint64_t bits);

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_SCRIPT_H_
