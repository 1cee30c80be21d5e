// A trace under way: the definition as it grows, the stack of open bodies, and the first mistake
// made.
#ifndef FLUX_CLIENT_SRC_TRACER_H_
#define FLUX_CLIENT_SRC_TRACER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "flux/internal/tracer.h"
#include "flux/v1/definition.pb.h"

namespace flux::internal {

// Limits of a definition: the server's (GraphLimits), so that a graph it would refuse is refused
// here, with file and line.
inline constexpr uint32_t kStepsMax = 50'000;
inline constexpr uint32_t kScopesMax = 10'000;
inline constexpr uint32_t kDepthMax = 32;
inline constexpr uint32_t kInputsMax = 1'000;
inline constexpr size_t kDefinitionBytesMax = 16 * 1024 * 1024;
inline constexpr uint32_t kRetryAttemptsMax = 10'000;
inline constexpr double kBackoffFactorMax = 1'000;
inline constexpr int kMapParallelMax = 100'000;
inline constexpr absl::Duration kSpanMax = absl::Hours(24 * 366 * 100);

// Owned by the values of the workflow that is traced; used by one thread. Mistakes are recorded by
// Fail() and never stop the trace: what follows one works on placeholders.
class Tracer : public std::enable_shared_from_this<Tracer> {
 public:
  explicit Tracer(const WorkflowSpec& spec);

  // Records a mistake, unless an earlier one is known. `parts` are the message.
  template <typename... Parts>
  void Fail(Location at, const Parts&... parts) {
    Record(at, absl::StrCat(parts...));
  }
  template <typename... Parts>
  void FailStep(const ValueRef& step, const Parts&... parts) {
    Record(PlaceOf(step), absl::StrCat(Describe(step), ": ", parts...));
  }
  const absl::Status& status() const { return status_; }

  // Adds a step to the innermost open scope. `base_name` is what its name is made from unless it is
  // given one. The step's message may move when the next step is added.
  ValueRef AddStep(std::string_view base_name, Location at, v1::Step step,
                   const std::vector<Argument>& inputs);
  // The step behind a handle. Null (with the mistake recorded) if it is not a step of this trace,
  // or the trace is over.
  v1::Step* Find(const ValueRef& step);
  void SetName(const ValueRef& step, std::string_view name);
  void SetLabel(const ValueRef& step, std::string_view name, std::string_view value);
  void AddAfter(const ValueRef& step, const ValueRef& earlier);

  ValueRef OpenBody(const ValueRef& owner, const BodySpec& spec, Location at);
  // The scope that is closed; null if the bodies are out of step (the mistake is recorded).
  v1::Scope* CloseBody(const ValueRef& owner, Location at);

  // The input that `argument` is when it is read in the innermost open scope: an outer value
  // becomes a capture of every body between.
  v1::Input Resolve(const Argument& argument, Location at, std::string_view what);

  // Milliseconds, rounded up; 0 with the mistake recorded if it is negative or longer than
  // kSpanMax.
  int64_t Milliseconds(absl::Duration duration, Location at, std::string_view what);
  v1::RetryPolicy Retry(const RetryOptions& retry, v1::RetryPolicy policy, Location at);
  v1::TaskStep Task(std::string_view name, const TaskOptions& options, Location at);
  void CheckedName(std::string_view what, std::string_view name, Location at);

  v1::Definition& definition() { return definition_; }
  // One event has one type, whoever awaits it.
  void CheckEventType(const std::string& event, const std::string& type, Location at);
  // Whether steps are being added to the body that `step` belongs to.
  bool InInnermost(const ValueRef& step) const { return step.scope == open_.back(); }
  void AddChild(const WorkflowSpec& child);
  Location PlaceOf(const ValueRef& ref) const;
  std::string Describe(const ValueRef& ref);

  // Names the steps, checks the whole, serialises it.
  absl::StatusOr<Traced> Finish() &&;

 private:
  // A value of an outer scope by (is a parameter, index), and which capture it became.
  using Captures = std::map<std::pair<bool, uint32_t>, uint32_t>;

  struct StepInfo {
    Location at;
    std::string base_name;
    std::string given_name;
    Captures captures;  // inputs after the step's own
    uint32_t own_inputs = 0;
    std::vector<Captures> catch_captures;  // one a clause
  };
  struct ScopeInfo {
    std::deque<StepInfo> steps;
    uint32_t owner_scope = 0;
    uint32_t owner_step = 0;
    BodyRole role = BodyRole::kBlock;
    int clause = 0;  // of a kCatch
    Location at;
  };

  void Record(Location at, const std::string& message);
  v1::Step& StepAt(uint32_t scope, uint32_t index);
  // The body parameter that a value of the scope around `body` is inside it.
  uint32_t Capture(uint32_t body, bool parameter, uint32_t index, bool optional, Location at);
  ValueRef Ref(uint32_t scope, bool parameter, uint32_t index);
  void NameSteps();
  void CheckStep(const v1::Step& step, const StepInfo& info);
  void SetParameterCounts();

  v1::Definition definition_;
  std::deque<ScopeInfo> scopes_;
  std::vector<uint32_t> open_ = {0};  // scopes, outermost first
  uint32_t steps_ = 0;
  struct EventReader {
    std::string type;
    Location at;
  };
  std::map<std::string, EventReader> events_;  // first reader of each, by name
  std::vector<WorkflowSpec> children_;
  absl::Status status_;
  bool finished_ = false;
};

v1::Payload ToProto(const Payload& payload);

}  // namespace flux::internal

#endif  // FLUX_CLIENT_SRC_TRACER_H_
