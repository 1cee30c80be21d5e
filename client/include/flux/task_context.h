// What a running task can learn about itself and say to the coordinator.
#ifndef FLUX_TASK_CONTEXT_H_
#define FLUX_TASK_CONTEXT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "flux/codec.h"
#include "flux/outcome.h"
#include "flux/payload.h"

namespace flux {

// Given to a task's function that asks for it as its first parameter; valid until the function
// returns. Thread-safe: a function may share it with threads it joins before it returns.
class TaskContext {
 public:
  virtual ~TaskContext() = default;

  // From 1; grows with each retry.
  virtual uint32_t attempt() const = 0;
  virtual std::string workflow_id() const = 0;
  virtual std::string run_id() const = 0;
  // The step's name in the workflow.
  virtual std::string step() const = 0;
  // Names this delivery and no other, ever. Give it to external systems that can refuse older ones;
  // equal for no two attempts of a step.
  virtual std::string fencing_token() const = 0;
  // True once the result is wanted no more (cancelled, timed out, given to another worker): return
  // soon.
  virtual bool cancelled() const = 0;
  // When the attempt times out; absl::InfiniteFuture() if it does not.
  virtual absl::Time deadline() const = 0;

  // Sets a label of the execution, by which it can be found; an empty value removes it. It counts
  // once the result is recorded, and not if the attempt fails. InvalidArgument: the key (1 to 256
  // bytes of printable UTF-8) or the value (at most as many). The server allows 64 an execution.
  absl::Status SetLabel(std::string_view key, std::string_view value);
  // The same for the step that the task is: shown with it (`fluxctl workflow show`), over a label
  // of that name in the definition, and in the history. Executions are not found by it. 64 a step.
  absl::Status SetStepLabel(std::string_view key, std::string_view value);

  // Says that the task is alive. Cheap, never blocks; only the newest within an interval is sent.
  void Heartbeat() { HeartbeatPayload(Payload{}); }
  // The same with progress, which the next attempt gets as LastProgress(). InvalidArgument: it
  // cannot be encoded (then nothing was sent).
  template <typename T>
  absl::Status Heartbeat(const T& progress) {
    absl::StatusOr<Payload> payload = Encode(progress);
    if (!payload.ok()) return payload.status();
    HeartbeatPayload(*std::move(payload));
    return absl::OkStatus();
  }
  // The progress of the last heartbeat of the attempt before. Nothing if there was none, or if it
  // does not read as a T (an older program wrote it): starting afresh is right then.
  template <typename T>
  std::optional<T> LastProgress() const {
    absl::StatusOr<T> progress = Decode<T>(LastProgressPayload());
    if (!progress.ok()) return std::nullopt;
    return *std::move(progress);
  }

 protected:
  // Encoding::kUnspecified stands for no progress, in both.
  virtual void HeartbeatPayload(Payload progress) = 0;
  virtual Payload LastProgressPayload() const = 0;
  // Of a checked label.
  virtual void LabelText(std::string key, std::string value) = 0;
  virtual void StepLabelText(std::string key, std::string value) = 0;
};

namespace internal {

// A task's function with its types erased: decodes the inputs (JSON pointers already applied, see
// Project()), calls it, encodes what it answers. Called from many threads at once. User code in it
// may throw.
using TaskHandler = std::function<RawOutcome(TaskContext&, std::vector<Payload> inputs)>;

}  // namespace internal
}  // namespace flux

#endif  // FLUX_TASK_CONTEXT_H_
