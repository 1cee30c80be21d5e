// Internal: what flux/graph.h says to the tracer, without types and without protobuf.
//
// Tracing never stops at a mistake: the first one is kept, with file and line, and is what the
// trace answers.
#ifndef FLUX_INTERNAL_TRACER_H_
#define FLUX_INTERNAL_TRACER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "flux/error.h"
#include "flux/payload.h"
#include "flux/task.h"

namespace flux {

class Graph;

struct WorkflowOptions {
  std::string_view version = {};
  std::string_view description = {};
  absl::Duration execution_timeout = absl::ZeroDuration();  // of a whole execution; 0: none
};

// What a task step does once its attempts are used up.
enum class Exhausted {
  kFail,  // the step fails: a Catch handles it, or the execution fails
  kPark,  // the step is set aside for an operator, everything else goes on
};
inline constexpr Exhausted kFail = Exhausted::kFail;
inline constexpr Exhausted kPark = Exhausted::kPark;

// What becomes of an awaited child when its parent closes first. Values equal
// flux.v1.ParentClosePolicy's.
enum class ParentClose {
  kCancel = 1,     // it is asked to stop, and compensates
  kTerminate = 2,  // it ends at once
  kAbandon = 3,    // it goes on
};

namespace internal {

// Where user code said something. As a default argument it is the caller's place.
struct Location {
  const char* file = "";
  int line = 0;

  static constexpr Location Current(const char* file = __builtin_FILE(),
                                    int line = __builtin_LINE()) {
    return {file, line};
  }
};

// One trace under way; defined in client/src/tracer.h. Not thread-safe.
class Tracer;
using TracerPtr = std::shared_ptr<Tracer>;

// What a Value<T> is a handle to: the output of a step, or a parameter of a scope, or a part of it.
struct ValueRef {
  TracerPtr tracer;  // shared: a Value may be kept beyond its trace, where using it is refused
  uint32_t scope = 0;
  bool parameter = false;
  uint32_t index = 0;
  std::string pointer;  // JSON pointer
};

// Where an input of a step comes from: a value, or else a literal.
struct Argument {
  std::optional<ValueRef> value;
  Payload literal;
  bool optional = false;  // a skipped source is seen as "no value"
  absl::Status status;    // why the literal cannot be encoded

  static Argument Nothing();  // JSON null
};

// A workflow without its types. `build` traces the lambda into a graph.
struct WorkflowSpec {
  std::string_view name;
  WorkflowOptions options;
  void (*build)(Graph& graph) = nullptr;
};

// A traced workflow.
struct Traced {
  std::string definition_bytes;  // serialised flux.v1.Definition; deterministic
  std::string hash;              // SHA-256 of it, 32 bytes
  std::vector<WorkflowSpec>
      children;  // workflows that it starts, in order of appearance, itself left out
};

// What a task goes on with in its step's place: a graph and the values of its parameters.
struct Fragment {
  std::string definition_bytes;  // as Traced's
  std::vector<Payload> inputs;
  std::vector<WorkflowSpec> children;
};

// Traces a graph that is no workflow of its own. InvalidArgument as TraceOnce's.
absl::StatusOr<Traced> TraceFragment(const std::function<void(Graph&)>& build);

// Traces once a process; later calls answer with the same object, which is never destroyed.
// Thread-safe. InvalidArgument: the graph is wrong; the message names the step, the file and line,
// and the way out.
const absl::StatusOr<Traced>& TraceOnce(const WorkflowSpec& spec);

// The payloads of literals; or the first one's mistake, with its number.
absl::StatusOr<std::vector<Payload>> Literals(const std::vector<Argument>& arguments);

// ---- the workflow itself
// ----------------------------------------------------------------------------------------

ValueRef RootParameter(const TracerPtr& tracer, uint32_t index);
void SetSignature(const TracerPtr& tracer, std::vector<std::string> parameter_types,
                  std::string result_type);
void SetResult(const TracerPtr& tracer, const Argument& result);

// ---- steps
// ---------------------------------------------------------------------------------------------------------

ValueRef AddTask(const TracerPtr& tracer, std::string_view task, const TaskOptions& options,
                 const std::vector<Argument>& inputs, Location at);
ValueRef AddSleep(const TracerPtr& tracer, absl::Duration duration, Location at);
ValueRef AddSleepMilliseconds(const TracerPtr& tracer, const Argument& milliseconds, Location at);
ValueRef AddWaitEvent(const TracerPtr& tracer, std::string_view event, std::string type,
                      Location at);
ValueRef AddMap(const TracerPtr& tracer, const Argument& list, Location at);
ValueRef AddSwitch(const TracerPtr& tracer, std::string_view base_name, const Argument& condition,
                   Location at);
ValueRef AddLoop(const TracerPtr& tracer, const Argument& state, Location at);
ValueRef AddBlock(const TracerPtr& tracer, Location at);
ValueRef AddJoin(const TracerPtr& tracer, const std::vector<Argument>& inputs, Location at);
ValueRef AddChild(const TracerPtr& tracer, const WorkflowSpec& workflow,
                  const std::vector<Argument>& inputs, Location at);
ValueRef AddEmit(const TracerPtr& tracer, std::string_view event, const Argument& workflow_id,
                 const Argument& value, Location at);
ValueRef AddFail(const TracerPtr& tracer, const ErrorType& type, std::string_view message,
                 Location at);
ValueRef AddSkip(const TracerPtr& tracer, Location at);

// ---- bodies
// ---------------------------------------------------------------------------------------------------------

enum class BodyRole { kMap, kPage, kCase, kDefault, kLoop, kBlock, kCatch };

struct BodySpec {
  BodyRole role = BodyRole::kBlock;
  Argument match;                // kCase
  std::vector<ErrorType> types;  // kCatch; empty: every failure
};

// From here to CloseBody, steps are added to a body of `owner`. Answers the body's own parameter:
// the item, the cursor, the state or the failure (meaningless for the other roles).
ValueRef OpenBody(const ValueRef& owner, const BodySpec& spec, Location at);
void CloseBody(const ValueRef& owner, const Argument& result, Location at);
void CloseLoopBody(const ValueRef& owner, const Argument* done, const Argument& next, Location at);

// ---- options of a step
// ------------------------------------------------------------------------------------------------

enum class Timeout { kScheduleToStart, kStartToClose, kHeartbeat, kScheduleToClose };

void SetName(const ValueRef& step, std::string_view name);
void SetStepLabel(const ValueRef& step, std::string_view name, std::string_view value);
void AddAfter(const ValueRef& step, const ValueRef& earlier);
void SetRetry(const ValueRef& step, const RetryOptions& retry);
void SetQueue(const ValueRef& step, std::string_view queue);
void SetPriority(const ValueRef& step, int priority);
void SetTimeout(const ValueRef& step, Timeout which, absl::Duration timeout);
void SetUndo(const ValueRef& step, std::string_view task, const TaskOptions& options);
void SetOnExhausted(const ValueRef& step, Exhausted action);
void SetMaxParallel(const ValueRef& step, int items);
void SetTurns(const ValueRef& step, int64_t turns);
void SetEventTimeout(const ValueRef& step, absl::Duration timeout);
void SetEventDefault(const ValueRef& step, const Argument& value);
void SetChildId(const ValueRef& step, std::string_view workflow_id);
// The input becomes the child's workflow id.
void SetChildIdInput(const ValueRef& step, const Argument& workflow_id);
void SetParentClose(const ValueRef& step, ParentClose policy);
void SetDetached(const ValueRef& step);
void SetEmitDelay(const ValueRef& step, absl::Duration delay);
void SetMapFirst(const ValueRef& step, int64_t items);
void SetMapTolerance(const ValueRef& step, int items);
void SetMapToleranceShare(const ValueRef& step, double share);
void SetJoinFirst(const ValueRef& step, int inputs);
void SetJoinTolerance(const ValueRef& step, int inputs);
void SetLimitKey(const ValueRef& step, std::string_view pointer);
// A mistake the typed side found.
void Refuse(const TracerPtr& tracer, Location at, std::string_view why);

}  // namespace internal
}  // namespace flux

#endif  // FLUX_INTERNAL_TRACER_H_
